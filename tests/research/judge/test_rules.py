from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from research.judge.rules import Evidence, normalised, softmax

COUNT, WINDOWS = 4, 20


def evidence(
    given: ArrayLike, rates: ArrayLike | None = None, losses: ArrayLike | None = None
) -> Evidence:
    scores = np.asarray(given, float)
    windows = len(scores)
    return Evidence(
        np.arange(1, windows + 1) * 16.0,
        np.ones(windows) if rates is None else np.asarray(rates, float),
        scores,
        np.where(np.isfinite(scores), 2.0, 0.0),
        np.linspace(3.0, 2.0, windows) if losses is None else np.asarray(losses, float),
        2.0,
    )


def test_constant_scores_add_their_normalised_distance_from_the_mean_every_window() -> None:
    scores = np.array([5.0, 1.0, -1.0, 3.0])
    found = normalised(evidence(np.tile(scores, (WINDOWS, 1))))
    away = scores - scores.mean()
    np.testing.assert_allclose(found, WINDOWS * away / np.abs(away).max(), rtol=1e-12)
    assert softmax(0.1 * found).sum() == pytest.approx(1.0)


def test_late_evidence_leaves_the_early_windows_out() -> None:
    early, late = np.tile([9.0, 0, 0, 0], (10, 1)), np.tile([0, 0, 0, 1.0], (10, 1))
    found = evidence(np.concatenate((early, late))).late(0.5)
    assert len(found.scores) == 10
    np.testing.assert_allclose(found.slopes().mean, [0, 0, 0, 10.0])


def test_slopes_sum_rate_times_score_and_their_errors_follow_the_scatter() -> None:
    dice = np.random.default_rng(1)
    truth, rates = np.array([2.0, 0.0, -1.0, 0.5]), np.linspace(2, 1, 400)
    found = evidence(truth + dice.normal(0, 3, (400, COUNT)), rates).slopes()
    expected = rates.sum() * truth
    assert (np.abs(found.mean - expected) < 4 * found.standard_error).all()
    np.testing.assert_allclose(found.standard_error, 3 * np.sqrt((rates**2).sum()), rtol=0.15)


def test_sources_that_a_window_did_not_draw_say_nothing_in_it() -> None:
    scores = np.tile([1.0, 2.0, 3.0, 4.0], (WINDOWS, 1))
    scores[::2, 1] = np.nan
    np.testing.assert_allclose(evidence(scores).slopes().mean, WINDOWS * np.array([1.0, 2, 3, 4]))


def test_calibrated_slopes_promise_what_was_seen() -> None:
    scores = np.tile([4.0, 4.0, 4.0, 4.0], (WINDOWS, 1))
    losses = np.linspace(3.0, 2.0, WINDOWS)
    found = evidence(scores, losses=losses)
    # The mean fall between first and last quarter, carried to the whole length.
    seen = (losses[:5].mean() - losses[-5:].mean()) * WINDOWS / (WINDOWS - 5)
    assert found.optimism() == pytest.approx(4.0 * WINDOWS / seen)
    np.testing.assert_allclose(found.calibrated().mean, seen)
