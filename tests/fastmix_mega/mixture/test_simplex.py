from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays

from fastmix_mega.mixture.simplex import (
    DecayedSums,
    effective_sources,
    entropy,
    exponentiated_gradient,
    geometric_mean,
    loss_weights,
    mixture_standard_error,
    sampling_distribution,
    softmax,
)

logit_vectors = arrays(np.float64, 5, elements=some.floats(-6, 6))


@given(logit_vectors, some.floats(0, 1))
def test_weighted_law_is_the_mixture(logits: np.ndarray, exploration: float) -> None:
    """q * (mixture / q) = mixture: what makes reweighting and sampling agree in expectation."""
    mixture = softmax(logits)
    law = sampling_distribution(mixture, exploration)
    assert law.sum() == pytest.approx(1)
    np.testing.assert_allclose(law * loss_weights(mixture, law), mixture, rtol=1e-12)


def test_extreme_laws() -> None:
    mixture = np.array([0.7, 0.2, 0.1])
    assert sampling_distribution(mixture, 0) is mixture
    assert loss_weights(mixture, mixture).tolist() == [1, 1, 1]
    np.testing.assert_allclose(sampling_distribution(mixture, 1), 1 / 3)
    np.testing.assert_allclose(
        loss_weights(mixture, sampling_distribution(mixture, 1)), 3 * mixture
    )


@given(logit_vectors, arrays(np.float64, 5, elements=some.floats(-3, 3)), some.floats(-5, 5))
def test_update_ignores_a_common_offset(
    logits: np.ndarray, scores: np.ndarray, offset: float
) -> None:
    moved = exponentiated_gradient(logits, scores, 1.0, 0.2)
    shifted = exponentiated_gradient(logits, scores + offset, 1.0, 0.2)
    np.testing.assert_allclose(softmax(moved), softmax(shifted), rtol=1e-9)


def test_update_follows_the_scores() -> None:
    mixture = softmax(exponentiated_gradient(np.zeros(3), np.array([1.0, 0.0, -1.0]), 1.0, 0.2))
    wanted = np.exp([0.2, 0.0, -0.2])
    np.testing.assert_allclose(mixture, wanted / wanted.sum())


def test_entropy_and_effective_sources() -> None:
    assert entropy(np.array([1.0, 0.0])) == 0.0
    assert effective_sources(np.full(8, 1 / 8)) == pytest.approx(8)


def test_decayed_sums_match_weighted_statistics() -> None:
    """Mean and its variance as weighted by own weight x decay^age, from the observations."""
    random = np.random.default_rng(1)
    windows = [random.normal(2, 3, size) for size in (40, 60, 50)]
    own = [random.integers(1, 9, len(values)).astype(np.float64) for values in windows]
    sums = DecayedSums.zeros(1)
    for values, w in zip(windows, own, strict=True):
        rows = (w * values, w * values**2, w, w**2)
        sums = sums.add(np.array([[row.sum()] for row in rows]), 0.7)
    weights = np.concatenate([w * 0.7 ** (2 - age) for age, w in enumerate(own)])
    values = np.concatenate(windows)
    mean = np.average(values, weights=weights)
    variance = np.average((values - mean) ** 2, weights=weights)
    error = np.sqrt(variance * (weights**2).sum()) / weights.sum()
    estimate = sums.estimate()
    assert estimate.mean[0] == pytest.approx(mean)
    assert estimate.standard_error[0] == pytest.approx(error)


def test_a_source_never_seen_scores_zero() -> None:
    estimate = (
        DecayedSums.zeros(2).add(np.array([[3.0, 0], [5.0, 0], [2.0, 0], [2.0, 0]]), 0.7).estimate()
    )
    assert estimate.mean.tolist() == [1.5, 0.0]
    assert estimate.standard_error[1] == 0.0


def test_geometric_mean() -> None:
    points = np.log(np.array([[0.8, 0.2], [0.2, 0.8], [0.5, 0.5]]))
    np.testing.assert_allclose(geometric_mean(points), [0.5, 0.5])


def test_mixture_error_matches_simulation() -> None:
    random = np.random.default_rng(2)
    logits, deviations = np.array([1.0, 0.0, -1.0]), np.array([0.01, 0.02, 0.03])
    draws = logits + deviations * random.standard_normal((20000, 3))
    exponentials = np.exp(draws)
    spread = (exponentials / exponentials.sum(1, keepdims=True)).std(0)
    found = mixture_standard_error(softmax(logits), deviations**2)
    np.testing.assert_allclose(found, spread, rtol=0.03)
