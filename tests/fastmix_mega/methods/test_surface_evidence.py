"""A search whose answer comes from a loss surface, in real processes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import parse_config
from fastmix_mega.data.run_inputs import open_inputs
from fastmix_mega.evaluation.retrain import Candidate, predictions_of
from fastmix_mega.files import read_jsonl
from fastmix_mega.methods.base import OpenedData, Preview
from fastmix_mega.methods.fastmix import FastMix
from fastmix_mega.methods.surface_evidence import bigram_warnings, disagreements
from fastmix_mega.mixture.file import read_mixture
from tests.fastmix_mega.report.surface_samples import BUDGET, random_evidence
from tests.launch import column, forked, run_config

ENDS = ("mixture.json", "surface.json", "predictions.json")
KEYS = (("metrics.jsonl", "loss"), ("history.jsonl", "scores"), ("history.jsonl", "mixture"))


@pytest.fixture
def surface(settings: dict[str, Any]) -> dict[str, Any]:
    """Two targets in turn: windows of 2 steps from step 8 of 24 on."""
    search = {"answer": "surface", "every": 2, "warmup": 8, "target_batch": 6}
    return settings | {"search": search}


def test_where_the_answer_comes_from(settings: dict[str, Any], chats: dict[str, Any]) -> None:
    def takes(given: dict[str, Any], **search: Any) -> bool:
        method = FastMix(parse_config(given | {"search": search}))
        inputs = open_inputs(method.config)
        return method.takes_surface(inputs.sources, inputs.targets)

    assert takes(settings)
    assert takes(settings, initial="proportional")
    assert not takes(settings, initial="bigram")
    assert not takes(settings, step=0.1)
    assert not takes(settings, objective="minimax")
    assert not takes(settings, stop_when_converged=0.05)
    assert not takes(settings, answer="trajectory")
    assert not takes(chats)
    assert takes(chats, answer="surface")


@pytest.mark.distributed
def test_the_answer_is_the_same_on_one_and_two_processes(
    surface: dict[str, Any], tmp_path: Path
) -> None:
    one = run_config("search", surface, tmp_path / "one", processes=1)
    two = run_config("search", surface, tmp_path / "two", processes=2)
    for key in KEYS:
        np.testing.assert_allclose(column(one, *key), column(two, *key), rtol=2e-4, atol=1e-6)
    # The run trains on its first mixture, whatever the answer is.
    assert np.allclose(column(two, "history.jsonl", "sampling"), 0.25)
    rows = read_jsonl(two / "history.jsonl")
    assert len(rows) == 8
    assert list(rows[0]["target_loss"]) == ["near"]
    assert set(rows[-1]["target_loss"]) == {"near", "far"}

    found = read_mixture(two / "mixture.json")
    weights = {source.name: source.weight for source in found.sources}
    # The tokens of the more important target are distributed like beta's.
    assert max(weights, key=weights.__getitem__) == "beta"
    assert weights["beta"] > 0.3
    search = found.search
    assert search["answer_from"] == "surface"
    assert set(search["evidence"]) == {"ngrams", "bigrams", "scores"}
    predicted = search["predictions"]
    assert predicted["answer"]["near"]["loss"] < predicted["uniform"]["near"]["loss"]
    assert 0.5 < search["probability_better"] <= 1
    assert 1 < search["cost_in_proxy_runs"] < 1.6
    page = (two / "report.html").read_text()
    assert "Where this mixture comes from" in page
    assert "How the answer moved" in page


@pytest.mark.distributed
def test_resumed_it_answers_the_same(surface: dict[str, Any], tmp_path: Path) -> None:
    surface["checkpoint"] = {"every": 5, "keep": 9}
    run_dir = run_config("search", surface, tmp_path, processes=2)
    whole = [column(run_dir, *key) for key in KEYS]
    before = {name: (run_dir / name).read_text() for name in ENDS}
    for step in (15, 20, 24):
        shutil.rmtree(run_dir / "checkpoints" / f"step_{step}")
    (run_dir / "mixture.json").unlink()
    _, shown = forked("search", str(tmp_path / "config.yaml"), processes=2)
    assert "continuing after step 10" in shown
    for key, wanted in zip(KEYS, whole, strict=True):
        assert np.array_equal(column(run_dir, *key), wanted)
    for name, text in before.items():
        assert (run_dir / name).read_text() == text


@pytest.mark.distributed
def test_fastmix_surface_predicts_any_mixture(
    surface: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = run_config("search", surface, tmp_path)
    recorded = read_mixture(run_dir / "mixture.json").search["predictions"]
    assert cli.main(["surface", str(run_dir)]) == 0
    shown = capsys.readouterr().out
    for kind in ("uniform", "answer", "ngrams", "scores"):
        assert f"{recorded[kind]['near']['loss']:.3f}" in shown

    output = tmp_path / "predicted.json"
    words = ["--mixture", "uniform", "--mixture", str(run_dir), "--output", str(output)]
    assert cli.main(["surface", str(run_dir), *words]) == 0
    rows = json.loads(output.read_text())
    assert [row["target"] for row in rows] == ["near", "far"] * 2
    assert rows[0]["loss"] == pytest.approx(recorded["uniform"]["near"]["loss"], abs=1e-4)
    assert rows[2]["loss"] == pytest.approx(recorded["answer"]["near"]["loss"], abs=1e-4)
    assert rows[2]["low"] < rows[2]["loss"] < rows[2]["high"]
    assert cli.main(["surface", str(run_dir), "--output", str(tmp_path / "x.txt")]) == 2

    # What `fastmix retrain` shows beside the losses: by a set's name, or by its files.
    near, far = surface["targets"]
    prefixes = {"near": near["prefix"], "renamed": far["prefix"]}
    prefixes["other"] = surface["sources"][0]["prefix"]
    sets = [{"name": name, "prefix": prefix} for name, prefix in prefixes.items()]
    judged = parse_config(surface | {"evaluation": {"sets": sets}})
    answer = read_mixture(run_dir / "mixture.json")
    candidate = Candidate("found", {each.name: each.weight for each in answer.sources})
    found, missing = predictions_of(run_dir, [candidate], [str(run_dir)], judged)
    told = [found["found"][name][0] for name in ("near", "renamed")]
    assert told == pytest.approx([rows[2]["loss"], rows[3]["loss"]], abs=1e-4)
    assert missing.startswith("no predictions for other: the search predicts losses on its targets")
    _no_surface(run_dir, capsys)


def _no_surface(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `fastmix surface` says where there is none, and why."""

    def told(folder: Path = run_dir) -> str:
        assert cli.main(["surface", str(folder)]) == 2
        return capsys.readouterr().err

    (run_dir / "surface.json").unlink()
    assert "a search with search.answer: surface writes one" in told()
    (run_dir / "mixture.json").unlink()
    assert "has not finished (it has made 24 of 24 steps)" in told()
    (run_dir / "metrics.jsonl").unlink()
    assert "it has made no step yet" in told()
    several = run_dir.parent / "several"
    several.mkdir()
    assert "is not a run folder" in told(several)
    run_dir.rename(several / "seed_3")
    assert "holds the runs of several seeds; name one, for example" in told(several)


@pytest.mark.distributed
def test_limits_hold_for_the_answer(surface: dict[str, Any], tmp_path: Path) -> None:
    limits = {
        "sources": {"beta": {"max": 0.2}},
        "groups": {"ends": {"sources": ["alpha", "delta"], "min": 0.4}},
    }
    surface["search"]["constraints"] = limits
    found = read_mixture(run_config("search", surface, tmp_path) / "mixture.json")
    weights = {source.name: source.weight for source in found.sources}
    assert weights["beta"] < 0.2 + 1e-9
    assert weights["alpha"] + weights["delta"] > 0.4 - 1e-9
    assert found.search["unconstrained"]["beta"] > 0.2


def test_disagreements_name_the_source() -> None:
    alone = {"ngrams": np.array([0.6, 0.3, 0.1]), "scores": np.array([0.05, 0.75, 0.2])}
    (found,) = disagreements(["spam", "web", "code"], alone)
    assert found == "n-grams want 60% of spam, the run's scores 5%"


def test_the_largest_disagreement_comes_first() -> None:
    alone = {"ngrams": np.array([0.3, 0.1, 0.6]), "scores": np.array([0.45, 0.5, 0.05])}
    found = disagreements(["web", "code", "spam"], alone)
    assert [text.split(" of ")[1].split(",")[0] for text in found] == ["spam", "code"]


def test_a_model_no_stronger_than_bigrams_is_told() -> None:
    recorded = random_evidence(6, 2)
    assert recorded.ngrams is not None
    assert recorded.ngrams.lengths == (1, 2)
    (found,) = bigram_warnings(["code", "answers"], recorded, BUDGET)
    assert "no stronger than bigrams of its data on code (4.50 nats per token" in found
    assert "answers (" not in found
    strong = replace(recorded, ngrams=replace(recorded.ngrams, context_lengths=(2, 2)))
    assert bigram_warnings(["code", "answers"], strong, BUDGET) == []
    assert bigram_warnings(["code", "answers"], replace(recorded, ngrams=None), BUDGET) == []


def test_every_target_needs_a_window(surface: dict[str, Any]) -> None:
    def preview(every: int) -> Preview:
        surface["search"]["every"] = every
        method = FastMix(parse_config(surface))
        inputs = open_inputs(method.config)
        data = OpenedData(inputs.sources, inputs.targets, inputs.tokenizer.sha256)
        return method.preview(data)

    (mistake,) = preview(16).mistakes
    assert "1 windows of scores are fewer than the 2 targets" in mistake
    assert preview(2).mistakes == []
    assert "only 8 windows of scores for 2 target(s)" in preview(2).warnings[0]
