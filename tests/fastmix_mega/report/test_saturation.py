"""A pull that falls as the share rises is called saturating; one that does not is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastmix_mega.report.build import build_report
from fastmix_mega.report.read import read_run
from fastmix_mega.report.saturation import saturation
from fastmix_mega.report.sources import view_mixture
from tests.fastmix_mega.report.samples import write_run

NAMES = ("worn", "fresh", "rest")


def readings(directory: Path, scores_of: Callable[[float], list[float]]) -> dict[str, str]:
    """Of a run whose first two sources' shares rise, with scores as a function of the time."""
    write_run(directory, NAMES, outer_steps=40)
    random = np.random.default_rng(0)
    path = directory / "history.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number, row in enumerate(rows):
        time = number / (len(rows) - 1)
        row["mixture"] = [1 / 3 + 0.15 * time, 1 / 3 + 0.1 * time, 1 / 3 - 0.25 * time]
        row["scores"] = (np.array(scores_of(time)) + 0.05 * random.standard_normal(3)).tolist()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(directory)
    mixture = view_mixture(run)
    assert mixture is not None
    assert "Does a source saturate?" in build_report(directory).read_text()
    return {row.source.name: row.reading for row in saturation(run, mixture)}


def test_falling_and_steady_pulls(tmp_path: Path) -> None:
    found = readings(tmp_path / "run", lambda time: [1.0 - 1.6 * time, 0.8, -1.5])
    assert found["worn"].startswith("saturating")
    assert found["fresh"].startswith("no saturation")
    assert found["rest"] == "its share did not rise"


def test_too_short_a_search_says_nothing(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", outer_steps=10))
    mixture = view_mixture(run)
    assert mixture is not None
    assert saturation(run, mixture) == []
