"""The n-gram mixture against a convex solver, by hand, and on corpora with a known answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cvxpy
import numpy as np
import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.methods.ngram import fit_mixture, source_likelihoods
from fastmix_mega.mixture.bigram import bigram_keys
from fastmix_mega.mixture.file import read_mixture


@pytest.mark.parametrize("seed", range(10))
def test_the_fit_is_a_convex_solvers(seed: int) -> None:
    random = np.random.default_rng(seed)
    likelihoods = random.dirichlet(np.full(60, 0.3), 5).T + 1e-6
    weights = random.dirichlet(np.full(60, 0.3))
    shares = cvxpy.Variable(5)
    value = cvxpy.sum(cvxpy.multiply(weights, cvxpy.log(likelihoods @ shares)))
    cvxpy.Problem(cvxpy.Maximize(value), [shares >= 0, cvxpy.sum(shares) == 1]).solve()

    found = fit_mixture(likelihoods, weights)
    assert found.shares.sum() == pytest.approx(1)
    assert weights @ np.log(likelihoods @ found.shares) >= value.value - 2e-6
    np.testing.assert_allclose(found.shares, shares.value, atol=5e-3)


def test_likelihoods_sum_to_one_over_all_pairs() -> None:
    random = np.random.default_rng(0)
    sequences = random.integers(0, 7, (20, 9)).astype(np.int64)
    assert source_likelihoods(sequences, np.arange(49), 7).sum() == pytest.approx(1)


def test_a_source_that_repeats_itself_is_its_pairs() -> None:
    sequences = np.tile(np.array([0, 1, 2, 0, 1, 2, 0], np.int64), (6, 1))
    found = source_likelihoods(sequences, np.arange(9), 3).reshape(3, 3)
    np.testing.assert_allclose(found[[0, 1, 2], [1, 2, 0]], 1 / 3, atol=1e-3)
    assert found.sum() == pytest.approx(1)


def test_pairs_do_not_cross_sequences() -> None:
    assert bigram_keys(np.array([[1, 2, 3], [4, 5, 6]]), 10).tolist() == [12, 23, 45, 56]


def test_the_command_finds_the_sources_of_the_targets(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The targets are beta's and gamma's distributions, with weights 2 and 1.
    path, output = tmp_path / "config.yaml", tmp_path / "mixture.json"
    path.write_text(yaml.safe_dump(settings))
    assert cli.main(["ngram", str(path), "--output", str(output)]) == 0
    mixture = read_mixture(output)
    found = {source.name: source.weight for source in mixture.sources}
    assert found["beta"] == pytest.approx(2 / 3, abs=0.12)
    assert found["gamma"] == pytest.approx(1 / 3, abs=0.12)
    assert mixture.search["method"] == "ngram"
    assert "beta" in capsys.readouterr().out

    # Any verb takes the file.
    settings["mixture"] = str(output)
    path.write_text(yaml.safe_dump(settings))
    assert cli.main(["check", str(path)]) == 0


def test_too_short_a_source_is_a_clear_error(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings["train"]["seq_length"] = 4000
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert cli.main(["ngram", str(path), "--output", str(tmp_path / "mixture.json")]) == 2
    assert "lower train.seq_length" in capsys.readouterr().err
    assert not (tmp_path / "mixture.json").exists()
