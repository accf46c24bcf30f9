"""Branches of a search's model: their mixtures, real ones, and what the surface makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.config.schema import load_common_config
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.evaluation.branches import UNCHANGED, branch_mixtures
from fastmix_mega.files import read_jsonl
from fastmix_mega.methods.run_evidence import read_runs
from fastmix_mega.mixture.file import read_mixture
from tests.launch import forked, run_config

NAMES = ("alpha", "beta", "gamma", "delta")


def test_half_of_a_branch_is_its_source() -> None:
    found = branch_mixtures({"a": 0.2, "b": 0.8}, ["a"])
    assert found[UNCHANGED] == {"a": 0.2, "b": 0.8}
    assert found["half_a"] == pytest.approx({"a": 0.6, "b": 0.4})
    assert list(found) == [UNCHANGED, "half_a"]


@pytest.mark.distributed
def test_branches_move_the_surface(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings["search"] = {"answer": "surface", "every": 2, "warmup": 8, "target_batch": 6}
    run = run_config("search", settings, tmp_path / "search")
    config = load_common_config(run / "config.yaml")
    words = ["branch", str(run), "train.steps=4", "--nproc", "1"]
    _, told = forked(*words, "--source", "beta")
    assert "2 branches of 4 steps" in told
    assert "fewer than 3 runs of its kind" in told
    _, told = forked(*words)
    assert f"5 branches of 4 steps: {5 * 4 / config.train.steps:.2g} proxy runs" in told
    assert "5 of them are short branches of a trained model" in told
    assert "best with evidence: " in told

    # From the search's end, all with one seed, on the targets.
    folders = {path.name: path for path in (run / "branches").iterdir() if path.is_dir()}
    assert set(folders) == {f"{name}_8" for name in (UNCHANGED, *(f"half_{n}" for n in NAMES))}
    for name, folder in folders.items():
        own = yaml.safe_load((folder / "config.yaml").read_text())
        assert own["init_from"] == str(run.resolve())
        assert own["train"]["schedule"]["peak"] == config.train.schedule.peak / 4
        losses = next(row["eval"] for row in read_jsonl(folder / "metrics.jsonl") if "eval" in row)
        assert set(losses) == {"near", "far"}
        source = name.removeprefix("half_").removesuffix("_8")
        if source in NAMES:
            assert read_mixture(folder / "mixture.json").weights[source] == pytest.approx(0.625)

    # The search's own mixture stays as it was, the best one with them trains a large run.
    best = run / "branches" / "best.json"
    file, search = read_mixture(best), read_mixture(run / "mixture.json")
    weights = file.weights
    assert weights != search.weights
    assert [each.prefix for each in file.sources] == [each.prefix for each in search.sources]
    assert max(each.stderr for each in file.sources) > 0
    assert file.search["evidence_runs"] == [str(run / "branches")]
    sha256 = Tokenizer(config.tokenizer).sha256
    values = read_runs([str(run / "branches")], config, sha256).values
    assert values.short.tolist() == [True] * 5
    more = settings | {"mixture": str(best), "train": settings["train"] | {"steps": 4}}
    assert (run_config("train", more, tmp_path / "large") / "mixture.json").is_file()

    # Started again it trains nothing; with other settings it goes elsewhere.
    _, told = forked(*words)
    assert "run 1 of" not in told
    assert read_mixture(best).weights == weights
    assert cli.main(["branch", str(run), "train.steps=5"]) == 2
    assert "holds another run" in capsys.readouterr().err
    again, blend = tmp_path / "again.json", tmp_path / "blend.txt"
    more = ["--evidence", str(run / "branches"), "--best", str(again)]
    assert cli.main(["surface", str(run), *more]) == 0
    assert read_mixture(again).weights == pytest.approx(weights, abs=1e-6)
    assert cli.main(["export", str(again), "--to", "megatron", "--output", str(blend)]) == 0
    assert all(str(each.prefix) in blend.read_text() for each in file.sources)


@pytest.mark.distributed
def test_what_has_no_branches(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings["search"] = {"answer": "surface", "every": 2, "warmup": 8, "target_batch": 6}
    settings["checkpoint"] = {"final": False}
    run = run_config("search", settings, tmp_path / "search")
    mistakes = {
        ("branch", str(run)): "checkpoint",
        ("branch", str(run), "--source", "web"): "--source web is no source of",
        ("branch", str(tmp_path)): "is not a run folder",
    }
    for words, told in mistakes.items():
        assert cli.main(list(words)) == 2
        assert told in capsys.readouterr().err
    whole = (run / "mixture.json").read_text()
    (run / "mixture.json").write_text(whole.replace('"trained_on"', '"other"'))
    assert cli.main(["branch", str(run)]) == 2
    assert "does not say what the search trained on" in capsys.readouterr().err
    renamed = whole.replace('"name": "alpha"', '"name": "omega"')
    (run / "mixture.json").write_text(renamed)
    assert cli.main(["surface", str(run), "--mixture", "uniform"]) == 2
    assert "mixture.json is of other sources" in capsys.readouterr().err
    (run / "surface.json").unlink()
    assert cli.main(["branch", str(run)]) == 2
    assert "left no loss surface" in capsys.readouterr().err
    shutil.rmtree(run)
