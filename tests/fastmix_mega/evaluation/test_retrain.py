"""Retraining a search's claim: real runs, paired seeds, intervals that hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from fastmix_mega.cli import main as cli
from fastmix_mega.errors import UserError
from fastmix_mega.evaluation.retrain import candidate_of, difference, final_losses, table
from fastmix_mega.files import read_jsonl
from tests.fastmix_mega.report.samples import write_run
from tests.launch import fastmix, run_config


def test_the_interval_is_students() -> None:
    random = np.random.default_rng(0)
    mine, first = random.normal(size=(2, 5))
    found = difference(mine.tolist(), first.tolist())
    wanted = stats.ttest_rel(mine, first).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.verdict == "not told apart"
    assert difference([1.0, 1.1], [2.0, 2.1001]).verdict == "better"
    assert difference([2.0, 2.1001], [1.0, 1.1]).verdict == "worse"
    alone = difference([1.0], [2.0])
    assert (alone.mean, alone.low, alone.verdict) == (-1.0, None, "one seed")


def test_the_table_pairs_by_seed() -> None:
    uniform = [{"near": 3.0}, {"near": 4.0}]
    shown = table({"uniform": uniform, "found": [{"near": 2.5}, {"near": 3.4}]})
    last = shown.splitlines()[-1]
    assert last.startswith("| near | found | 2.9500 | 0.6364 | -0.5500 | -1.1853 to +0.0853 |")
    assert "not told apart" in last


def test_a_mixture_by_its_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "a", ("docs", "code"), outer_steps=4)
    found = candidate_of(str(run))
    assert found.name == "a"
    assert isinstance(found.weights, dict)
    assert found == candidate_of(str(run / "mixture.json"))
    assert candidate_of("uniform").weights == "uniform"
    with pytest.raises(UserError, match="cannot read the mixture"):
        candidate_of(str(tmp_path / "none"))


@pytest.mark.distributed
def test_retrain_of_a_search(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The losses are those of `fastmix train` of the same mixture; finished runs are kept; what
    would be another study in the same folder is refused."""
    settings["evaluation"] = {"sequences": 8}
    run_dir = run_config("search", settings, tmp_path / "search")
    names = [source["name"] for source in settings["sources"]]
    other = dict(zip(names, (0.1, 0.7, 0.1, 0.1), strict=True))
    (tmp_path / "other.json").write_text(
        json.dumps({"sources": [{"name": key, "weight": value} for key, value in other.items()]})
    )
    words = ["retrain", str(run_dir), "--seeds", "2", "--mixture", str(tmp_path / "other.json")]
    shown = fastmix(*words, "--nproc", "1", "train.steps=6")
    assert "warning: judged on the targets themselves" in shown
    assert "run 6 of 6: other, seed 102" in shown
    assert shown.count("| near |") == shown.count("| far |") == 3
    told = json.loads((run_dir / "retrain" / "retrain.json").read_text())
    assert told["seeds"] == [101, 102]
    assert told["mixtures"]["other"] == other
    assert told["train_tokens"] == 6 * 8 * 16

    plain = settings | {"mixture": other, "seed": 102, "train": settings["train"] | {"steps": 6}}
    sets = [{"name": each["name"], "prefix": each["prefix"]} for each in settings["targets"]]
    plain |= {"evaluation": {"sequences": 8, "sets": sets}}
    by_hand = run_config("train", plain, tmp_path / "train")
    assert told["losses"]["other"][1] == final_losses(by_hand)

    before = read_jsonl(run_dir / "retrain" / "found_101" / "metrics.jsonl")
    assert cli.main([*words, "--nproc", "1", "train.steps=6"]) == 0
    assert "run 1 of" not in capsys.readouterr().out
    assert read_jsonl(run_dir / "retrain" / "found_101" / "metrics.jsonl") == before
    assert cli.main([*words, "train.steps=7"]) == 2
    assert "holds another run" in capsys.readouterr().err


def test_mistakes(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str) -> str:
        assert cli.main(["retrain", *words]) == 2
        return capsys.readouterr().err

    assert "is not a run folder" in told(str(tmp_path))
    run = tmp_path / "run"
    run.mkdir()
    settings["targets"] = []
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert "there is nothing to judge on" in told(str(run))
