"""What the windows of a run are worth: a fall that was not seen makes its scores say little."""

from __future__ import annotations

import numpy as np
import pytest

from fastmix_mega.mixture.surface_controller import SurfaceController, SurfaceSettings
from tests.fastmix_mega.mixture.windows import sums_of
from tests.fastmix_mega.report.surface_samples import random_evidence

WINDOWS = 8
SCORES = np.array([3.0, 1.0, 1.0, 1.0])


def searched(losses: np.ndarray, scores: np.ndarray = SCORES) -> SurfaceController:
    """After windows whose scores are always the same, at these losses of the only target."""
    looks = iter(losses)
    found = random_evidence(4, 1)
    settings = SurfaceSettings(
        np.ones(1), found.ngrams, lambda _: 0.1, lambda: np.array([next(looks)]), WINDOWS
    )
    controller = SurfaceController(np.full(4, 0.25), settings)
    for _ in losses:
        controller.update(sums_of(scores.tolist()))
        controller.row()
    return controller


def test_the_scale_is_the_fall_seen_over_the_fall_promised() -> None:
    # Each window promises its rate times the mean score, 0.15: 1.2 in all.
    controller = searched(5 - 0.06 * np.arange(WINDOWS))
    assert controller.scale() == (pytest.approx(0.4), pytest.approx(0, abs=1e-9))
    slopes = controller.slopes(0)
    np.testing.assert_allclose(slopes.mean, 0.4 * 0.8 * SCORES)
    # What is shown at the end is the answer.
    np.testing.assert_allclose(controller.row()["mixture"], controller.result().weights, atol=2e-3)


def test_ngrams_are_as_long_as_the_run_is_strong() -> None:
    whole = random_evidence(4, 1).ngrams
    assert whole is not None
    even = np.full(4, 0.25)
    levels = (whole.ngram_losses(even) @ whole.counts.weights.T)[:, 0]
    assert levels[0] > levels[1]
    for length, level in ((1, levels[0] + 0.01), (2, levels[0] - 0.01), (2, levels[1] - 0.01)):
        controller = searched(np.full(WINDOWS, level))
        ngrams = controller.surface().ngrams
        assert ngrams is not None
        assert ngrams.lengths == (length,)


def test_a_fall_that_was_not_seen_leaves_the_answer_to_the_ngrams() -> None:
    ngrams = random_evidence(4, 1).ngrams
    assert ngrams is not None
    slopes = -ngrams.losses(np.full(4, 0.25))[1][0]
    scores = 1.5 + 1.5 * (slopes - slopes.mean()) / np.abs(slopes - slopes.mean()).max()
    noise = 0.4 * np.array([1, -1, 1, -1, -1, 1, -1, 1])
    unsure, sure = searched(5 + noise, scores), searched(5 + 0 * noise, scores)
    assert unsure.scale() == (0.01, pytest.approx(0.477, abs=0.01))
    assert sure.scale() == (0.01, pytest.approx(0.01))
    far = [
        np.abs(each.answer(each.surface()) - each.answers_alone()["ngrams"]).sum() / 2
        for each in (unsure, sure)
    ]
    # Scores that are taken for nothing with certainty would cancel the n-grams.
    assert far[0] < 0.2 < 0.4 < far[1]
