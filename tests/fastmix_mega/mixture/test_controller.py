"""What rules whose answer is a mean over time have in common."""

from __future__ import annotations

import numpy as np
import pytest

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.controller import AverageController, window_estimate
from tests.fastmix_mega.mixture.windows import sums_of


class Alternating(AverageController):
    """All weight but a tenth goes to one source, then to the other."""

    def _moved(self, sums: FloatArray, means: FloatArray) -> FloatArray:
        del sums
        self._memory = means
        return np.array([0.9, 0.1]) if self.outer_step % 2 == 0 else np.array([0.1, 0.9])


def test_the_answer_is_the_mean_of_the_mixtures_after_every_update() -> None:
    controller = Alternating(np.array([0.5, 0.5]))
    np.testing.assert_array_equal(controller.result().weights, [0.5, 0.5])
    for _ in range(3):
        controller.update(sums_of([1.0, 2.0]))
    np.testing.assert_allclose(controller.result().weights, [1.9 / 3, 1.1 / 3])
    np.testing.assert_array_equal(controller.result().standard_errors, [0.0, 0.0])
    assert controller.outer_step == 3
    assert not controller.settled


def test_a_windows_means_and_errors() -> None:
    values = np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]])
    count = np.full(2, 3.0)
    sums = np.stack((values.sum(1), (values**2).sum(1), count, count))
    estimate = window_estimate(sums)
    np.testing.assert_allclose(estimate.mean, [2.0, 4.0])
    assert estimate.standard_error[0] == pytest.approx(np.sqrt(2 / 3) / np.sqrt(3))
    assert estimate.standard_error[1] == pytest.approx(0, abs=1e-12)
