"""The picture of quality against cost, read back from its SVG."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from research.quality.chart import COLOURS, HEIGHT, TOP, Point, chart, points
from research.quality.records import Record, Records
from research.quality.table import entries

SVG = "{http://www.w3.org/2000/svg}"


def dots(svg: str) -> dict[str, tuple[float, float]]:
    """Method -> (x, y) of a chart with one plot."""
    plot = ElementTree.fromstring(svg).find(f"{SVG}g")
    assert plot is not None
    found = {}
    for dot in plot.iter(f"{SVG}circle"):
        title = dot.findtext(f"{SVG}title")
        assert title is not None
        found[title.split(":")[0]] = (float(dot.attrib["cx"]), float(dot.attrib["cy"]))
    return found


def test_dearer_stands_to_the_right_and_better_below() -> None:
    gaps = {"fastmix": -0.3, "regmix12": -0.1, "regmix48": -0.2, "reference": 0.7, "odm": 0.1}
    costs = {"fastmix": 1.05, "regmix12": 12.0, "regmix48": 48.0, "reference": 1.08, "odm": 1.0}
    groups = {"fastmix": "fastmix", "regmix12": "RegMix", "regmix48": "RegMix"}
    found = dots(
        chart(
            {
                "a < b": [
                    Point(groups.get(name, "other methods"), name, costs[name], gap, 0.01)
                    for name, gap in gaps.items()
                ]
            }
        )
    )
    across = sorted(found, key=lambda name: found[name][0])
    assert across == ["odm", "fastmix", "reference", "regmix12", "regmix48"]
    down = sorted(found, key=lambda name: found[name][1])
    assert down[2:] == ["regmix12", "regmix48", "fastmix"]
    # What is far above uniform stands at the edge, not outside.
    assert found["reference"][1] == found["odm"][1] == TOP
    assert all(TOP <= y <= HEIGHT for _, y in found.values())


def test_points_are_paired_differences_of_the_records(tmp_path: Path) -> None:
    records = Records(tmp_path / "family.jsonl", {"of": "a test"})
    rng = np.random.default_rng(3)
    uniform = {seed: float(rng.normal(5.0, 0.1)) for seed in (101, 102, 103)}
    for seed, loss in uniform.items():
        records.add(Record("train", "uniform", seed, [0.5, 0.5], {"here": loss}, 1.0, 0.0))
        for name, gap in (("regmix24.here", -0.2), ("odm.here.s1", 0.1), ("ngram.there", -1.0)):
            losses = {"here": loss + gap}
            records.add(Record("train", name, seed, [0.9, 0.1], losses, 1.0, 0.0))
    details = {"gains": [None, None]}
    records.add(Record("search", "odm.here", 1, [0.9, 0.1], {}, 1.0, 0.0, details))
    found = {point.method: point for point in points(entries("here", records))}
    assert set(found) == {"regmix24", "odm"}
    assert abs(found["regmix24"].gap + 0.2) < 1e-9
    assert found["regmix24"].group == "RegMix"
    assert found["regmix24"].cost == 24
    assert abs(found["odm"].gap - 0.1) < 1e-9
    assert found["odm"].group in COLOURS
