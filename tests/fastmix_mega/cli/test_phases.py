"""A search of two phases, in real processes: each from the trunk of the one before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.mixture.file import read_mixture
from tests.launch import fastmix


@pytest.fixture
def phased(settings: dict[str, Any], corpora: Path, tmp_path: Path) -> Path:
    settings["search"] = {"every": 2, "warmup": 4, "target_batch": 6, "answer": "surface"}
    settings["train"] |= {"steps": 12}
    settings["phases"] = [
        {"name": "broad", "tokens": 6000, "constraints": {"sources": {"beta": {"max": 0.3}}}},
        {
            "name": "anneal",
            "tokens": "2k",
            "targets": [{"name": "far", "prefix": str(corpora / "other_target")}],
            "steps": 10,
            "schedule": {"warmup": 2, "peak": 5e-4},
        },
    ]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.distributed
def test_each_phase_begins_where_the_one_before_ended(phased: Path) -> None:
    shown = fastmix("search", str(phased), "--nproc", "1")
    run_dir = Path(yaml.safe_load(phased.read_text())["run_dir"])
    plan = read_mixture(run_dir / "mixture.json")
    assert [(stage.name, stage.from_tokens) for stage in plan.stages] == [
        ("broad", 0),
        ("anneal", 6000),
    ]
    broad, anneal = (
        read_mixture(run_dir / f"phase_{name}" / "mixture.json") for name in ("broad", "anneal")
    )
    names = [source.name for source in plan.sources]
    for stage, found in zip(plan.stages, (broad, anneal), strict=True):
        assert stage.weights == {source.name: source.weight for source in found.sources}
    # The trunk is trained on what the first phase found, and the second begins at its end.
    trunk = yaml.safe_load((run_dir / "trunk_broad" / "config.yaml").read_text())
    assert trunk["mixture"] == plan.stages[0].weights
    second = yaml.safe_load((run_dir / "phase_anneal" / "config.yaml").read_text())
    assert second["init_from"] == str(run_dir / "trunk_broad")
    assert json.loads((run_dir / "phase_anneal" / "run.json").read_text())["init_from"]
    # Each has its own targets, limits, steps and rate; what was read before counts.
    assert [target["name"] for target in anneal.targets] == ["far"]
    assert plan.stages[0].weights["beta"] < 0.3 + 1e-9
    assert (second["train"]["steps"], second["train"]["schedule"]["peak"]) == (10, 5e-4)
    limits = second["search"]["constraints"]
    assert limits["budget_tokens"] == 2000
    assert limits["read_tokens"] == {
        name: round(6000 * plan.stages[0].weights[name]) for name in names
    }
    assert "phase anneal: from" in shown
    # Started again, all of it is there.
    before = (run_dir / "mixture.json").read_text()
    again = fastmix("search", str(phased), "--nproc", "1")
    assert again.count("done before") == 2
    assert (run_dir / "mixture.json").read_text() == before


def test_a_short_phase_is_scored_oftener(phased: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From its start, since it begins with trained weights, and in windows that make twenty."""
    content = yaml.safe_load(phased.read_text())
    content["search"] = {"every": 8, "answer": "surface"}
    content["train"]["steps"] = 400
    content["phases"][1]["steps"] = 100
    phased.write_text(yaml.safe_dump(content))
    assert cli.main(["check", str(phased)]) == 0
    broad, anneal = capsys.readouterr().out.split("phase anneal")
    assert "25 windows of scores (body), the first after step 200 of 400" in broad
    assert "25 windows of scores (body), the first after step 24 of 100" in anneal


def test_phases_are_checked_before_any_runs(
    phased: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(phased.read_text())
    content["phases"][1]["targets"][0]["prefix"] = "nowhere"
    phased.write_text(yaml.safe_dump(content))
    for words in (["search", str(phased), "--nproc", "1"], ["check", str(phased)]):
        assert cli.main(words) == 2
        captured = capsys.readouterr()
        assert "nowhere" in captured.out + captured.err
        assert "phase anneal" in captured.out + captured.err
    assert not (Path(content["run_dir"]) / "phase_broad" / "run.json").exists()
    assert cli.main(["search", str(phased), "--seeds", "2"]) == 2
    assert "phases are searched one after the other" in capsys.readouterr().err
    content["phases"][1]["name"] = "broad"
    phased.write_text(yaml.safe_dump(content))
    assert cli.main(["check", str(phased)]) == 2
    assert "'broad' is used twice" in capsys.readouterr().err
