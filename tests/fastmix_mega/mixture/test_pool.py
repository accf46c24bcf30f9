"""Pooling over seeds and comparing, against numbers by hand and a study of known noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, read_mixture
from fastmix_mega.mixture.pool import (
    compare,
    describe_comparison,
    pool,
    pool_files,
    rank_correlation,
)
from tests.launch import fastmix


def mixture(seed: int, weights: dict[str, float], **search: Any) -> MixtureFile:
    sources = [MixtureSource(name=n, weight=w, stderr=0.02) for n, w in weights.items()]
    return MixtureFile(sources=sources, search={"seed": seed} | search)


def test_rank_correlation_is_spearmans() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        a, b = random.integers(0, 6, (2, 9)).astype(float)
        assert rank_correlation(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def test_standard_errors_are_those_of_the_pooled_mean() -> None:
    """Over many repetitions, the error told is as large as the pooled weights' real scatter."""
    random = np.random.default_rng(1)
    truth = np.log([0.4, 0.3, 0.2, 0.1])
    found, told = [], []
    for _ in range(2000):
        seeds = np.exp(truth + 0.1 * random.normal(size=(5, 4)))
        result = pool(seeds / seeds.sum(axis=1, keepdims=True), np.full((5, 4), 0.02))
        found.append(result.weights)
        told.append(result.standard_errors**2)
    assert np.sqrt(np.mean(told, axis=0)) == pytest.approx(np.std(found, axis=0), rel=0.06)
    assert np.mean(found, axis=0) == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=2e-3)


def test_a_warning_says_whose_it_is() -> None:
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    told: dict[int, list[str]] = {1: ["short", "odd"], 2: ["short", "noisy"], 7: ["short", "odd"]}
    pooled = pool_files([mixture(seed, shares, warnings=texts) for seed, texts in told.items()])
    assert pooled.search["warnings"] == ["all seeds: short", "seeds 1 and 7: odd", "seed 2: noisy"]


def test_seeds_that_agree_and_seeds_that_do_not() -> None:
    first = {"a": 0.5, "b": 0.3, "c": 0.2}
    near = pool_files([mixture(1, first), mixture(2, {"a": 0.48, "b": 0.33, "c": 0.19})])
    assert near.search["confident"]
    assert near.search["warnings"] == []
    assert near.search["seeds"] == [1, 2]
    far = pool_files([mixture(1, first), mixture(2, {"a": 0.2, "b": 0.3, "c": 0.5})])
    assert not far.search["confident"]
    assert far.search["agreement"] == pytest.approx(-1)
    assert "do not act on these weights" in far.search["warnings"][0]
    assert "below it in another: a, c" in far.search["warnings"][1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (None, "at least two seeds"),
        (mixture(1, {"a": 0.5, "b": 0.5}), "seeds must differ"),
        (mixture(2, {"a": 0.5, "c": 0.5}), "different sources"),
        (
            mixture(2, {"a": 0.5, "b": 0.5}).model_copy(update={"tokenizer": {"sha256": "x"}}),
            "different tokenizers",
        ),
    ],
)
def test_what_cannot_be_pooled(other: MixtureFile | None, message: str) -> None:
    given = [mixture(1, {"a": 0.4, "b": 0.6})] + ([other] if other else [])
    with pytest.raises(UserError, match=message):
        pool_files(given)


def test_comparison_over_different_sources() -> None:
    a, b = mixture(1, {"x": 0.5, "y": 0.5}), mixture(1, {"y": 0.6, "z": 0.4})
    result = compare(a, b)
    assert result.names == ["x", "y", "z"]
    assert result.moved == pytest.approx(0.5)
    assert result.sigmas[1] == pytest.approx(0.1 / np.hypot(0.02, 0.02))
    lines = describe_comparison(a, a)
    assert lines[-1].startswith("no source differs")
    assert "50.0% of the tokens are elsewhere" in describe_comparison(a, b)


@pytest.mark.distributed
def test_two_seeds_with_one_command(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    fastmix("search", str(path), "--seeds", "2")
    pooled = read_mixture(Path(settings["run_dir"]) / "mixture.json")
    assert pooled.search["seeds"] == [7, 8]
    each = [Path(settings["run_dir"]) / f"seed_{seed}" for seed in (7, 8)]
    logs = np.log([[s.weight for s in read_mixture(e / "mixture.json").sources] for e in each])
    wanted = np.exp(logs.mean(axis=0))
    assert [s.weight for s in pooled.sources] == pytest.approx(wanted / wanted.sum())
    assert "2 proxy runs (seeds 7 and 8)" in (each[0].parent / "report.html").read_text()
    assert "done before" in fastmix("search", str(path), "--seeds", "2")
    assert "another search" in fastmix(
        "search", str(path), "--seeds", "2", "train.steps=28", expect=2
    )
    assert cli.main(["compare", *map(str, each)]) == 0
    assert "of the tokens are elsewhere" in capsys.readouterr().out


def test_standard_errors_beyond_belief_are_not_counted() -> None:
    """A weight with an error of 1e-7 is not 1,000,000 standard errors away: its error is wrong."""
    sources = [MixtureSource(name=name, weight=0.5, stderr=1e-7) for name in "ab"]
    other = [MixtureSource(name="a", weight=0.6), MixtureSource(name="b", weight=0.4)]
    lines = describe_comparison(MixtureFile(sources=sources), MixtureFile(sources=other))
    assert [line.split()[-2:] for line in lines[1:3]] == [["over", "+100"], ["under", "-100"]]
