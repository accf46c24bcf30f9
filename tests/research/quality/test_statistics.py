from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from research.quality.statistics import (
    Difference,
    marginal_values,
    paired,
    pooled_deviation,
    summary,
    verdict,
)


def test_paired_differences_equal_scipys() -> None:
    random = np.random.default_rng(0)
    mine, other = random.normal(0, 1, 5), random.normal(0.5, 1, 5)
    seeds = range(101, 106)
    found = paired(dict(zip(seeds, mine, strict=True)), dict(zip(seeds, other, strict=True)))
    assert found is not None
    assert found.sigmas == pytest.approx(scipy.stats.ttest_rel(mine, other).statistic)
    assert found.pairs == 5


def test_only_common_seeds_are_paired() -> None:
    assert paired({1: 1.0, 2: 2.0}, {2: 1.5, 3: 9.0}) == Difference(0.5, None, 1)
    assert paired({1: 1.0}, {2: 1.0}) is None
    assert summary([2.0]) == (2.0, None)


def test_a_pooled_deviation_ignores_the_groups_means() -> None:
    groups = [[1.0, 3.0], [11.0, 13.0], [5.0]]
    assert pooled_deviation(groups) == (pytest.approx(np.sqrt(2)), 2)
    assert pooled_deviation([[1.0]]) is None


def test_marginal_values_of_a_linear_loss_are_found() -> None:
    random = np.random.default_rng(1)
    mixtures = random.dirichlet(np.ones(5), 200)
    truth = np.array([1.0, 0.5, 0.0, -0.5, -1.0])
    losses = 3 - mixtures @ truth + random.normal(0, 0.01, 200)
    found = marginal_values(mixtures, losses, penalty=1e-3)
    assert found - found.mean() == pytest.approx(truth, abs=0.02)


def test_a_verdict_needs_two_standard_errors() -> None:
    assert verdict(None, 0.1) == "not run"
    assert verdict(Difference(-0.3, None, 1), 0.1) == "better"
    assert verdict(Difference(-0.15, None, 1), 0.1) == "equal within noise"
    assert verdict(Difference(0.3, 0.01, 4), 0.1) == "worse"
    # Three seeds can agree by chance: their own error counts only where it is the larger one.
    assert verdict(Difference(-0.1, 0.001, 3), 0.1) == "equal within noise"
    assert verdict(Difference(-0.1, 0.2, 3), 0.01) == "equal within noise"
