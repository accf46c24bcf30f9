"""Finished runs as evidence: what is read of them, what is refused, and that the answer moves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import load_config, parse_config
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.methods.run_evidence import RunEvidence, read_runs
from fastmix_mega.mixture.file import read_mixture
from fastmix_mega.planning.check import check
from tests.launch import forked, run_config

NAMES = ("alpha", "beta", "gamma", "delta")


def write_file(path: Path, **changes: Any) -> Path:
    """Ten runs of other people's, in which `gamma` is worth most on `near`."""
    random = np.random.default_rng(0)
    runs = [
        {
            "run": f"r{number}",
            "mixture": dict(zip(NAMES, mixture.tolist(), strict=True)),
            "metrics": {"near": 1 - 0.5 * mixture[2]},
        }
        for number, mixture in enumerate(random.dirichlet(np.ones(4), size=10))
    ]
    content = {"schema": "fastmix-evidence/1", "kind": "values", "runs": runs} | changes
    path.write_text(json.dumps(content))
    return path


def read(given: Path, settings: dict[str, Any]) -> RunEvidence:
    config = parse_config(settings)
    return read_runs([str(given)], config, Tokenizer(config.tokenizer).sha256)


def test_a_file_is_a_kind_of_its_own(settings: dict[str, Any], tmp_path: Path) -> None:
    found = read(write_file(tmp_path / "e.json"), settings)
    assert found.values.mixtures.shape == (10, 4)
    assert (found.values.groups == 1).all()
    assert np.isnan(found.values.losses[:, 1]).all()
    assert "0 of this search's model" in found.facts[0]


def test_what_does_not_match_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    run = {"run": "a", "mixture": {"alpha": 0.6, "web": 0.4}, "metrics": {"arc": 1.0}}
    path = write_file(tmp_path / "e.json", runs=[run])
    settings["search"] = {"answer": "surface", "every": 2, "evidence": [str(path)]}
    mistakes = "\n".join(check(parse_config(settings), 1).mistakes)
    assert "trained 40.0% of its tokens on web, which is no source here" in mistakes
    assert "knows losses of arc, and none of them is named like a target (near, far)" in mistakes
    with pytest.raises(UserError, match="no finished run of fastmix train"):
        read(tmp_path, settings)
    settings["search"]["answer"] = "trajectory"
    assert any("search.evidence" in each for each in check(parse_config(settings), 1).mistakes)


@pytest.mark.distributed
def test_runs_move_the_surface(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search with other people's runs, its own retrained mixtures as evidence afterwards, and
    what was registered before any of them was trained."""
    settings["search"] = {"answer": "surface", "every": 2, "warmup": 8, "target_batch": 6}
    settings["search"]["evidence"] = [str(write_file(tmp_path / "e.json"))]
    run = run_config("search", settings, tmp_path / "search")
    registered = json.loads((run / "predictions.json").read_text())
    kinds = {"uniform", "answer", "ngrams", "bigrams", "scores", "runs"}
    assert set(registered["mixtures"]) == kinds
    search = read_mixture(run / "mixture.json").search
    told = search["predictions"]
    assert search["evidence"]["runs"]["gamma"] > search["evidence"]["ngrams"]["gamma"]
    assert registered["predictions"] == told

    words = ["retrain", str(run), "--seeds", "1", "--nproc", "1"]
    forked(*words)
    # As it was registered, and not as the surface says now.
    expected = told["answer"]["near"]
    told_now = json.loads((run / "retrain" / "retrain.json").read_text())
    assert told_now["predicted"]["found"]["near"][0] == pytest.approx(expected["loss"])

    output = tmp_path / "predicted.json"
    more = ["--evidence", str(run)]
    assert cli.main(["surface", str(run), *more, "--output", str(output)]) == 0
    assert "2 finished runs; 2 of this search's" in capsys.readouterr().err
    rows = {(row["mixture"], row["target"]): row for row in json.loads(output.read_text())}
    seen = told_now["losses"]["uniform"][0]["near"]
    after = rows["uniform", "near"]
    assert abs(after["loss"] - seen) < 0.05
    assert after["deviation"] < told["uniform"]["near"]["deviation"]
    assert sum(rows["best with evidence", "near"]["weights"].values()) == pytest.approx(1)

    # The run that would tell most is a mixture that training takes.
    nearby = tmp_path / "next.json"
    assert cli.main(["surface", str(run), *more, "--next", str(nearby)]) == 0
    capsys.readouterr()
    weights = {each.name: each.weight for each in read_mixture(nearby).sources}
    assert set(weights) == set(NAMES)

    # Another tokenizer, or a mixture that changed on the way, is no evidence.
    broken = tmp_path / "broken"
    shutil.copytree(run / "retrain" / "found_101", broken)
    given = yaml.safe_load((broken / "config.yaml").read_text())
    given["stages"] = [{"name": "late", "from_tokens": 100, "mixture": "uniform"}]
    (broken / "config.yaml").write_text(yaml.safe_dump(given))
    config = load_config(run / "config.yaml")
    with pytest.raises(UserError, match="changed its mixture"):
        read_runs([str(broken)], config, Tokenizer(config.tokenizer).sha256)
    with pytest.raises(UserError, match="another tokenizer"):
        read_runs([str(run / "retrain" / "found_101")], config, "0" * 64)
