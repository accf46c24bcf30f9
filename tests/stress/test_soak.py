from __future__ import annotations

import os

import numpy as np
import pytest

from tests.stress.soak import Sample, sample, slope


def test_slope_equals_numpys_fit() -> None:
    random = np.random.default_rng(0)
    seconds = np.arange(0, 600, 5.0)
    memory = 400 + 12 * seconds / 3600 + random.normal(0, 0.3, len(seconds))
    found = [Sample(when, size, 10, 3) for when, size in zip(seconds, memory, strict=True)]
    fit, covariance = np.polyfit(seconds / 3600, memory, 1, cov=True)
    rate, error = slope(found)
    assert rate == pytest.approx(fit[0])
    assert error == pytest.approx(np.sqrt(covariance[0, 0]))


def test_an_open_file_is_counted() -> None:
    before = sample(os.getpid(), 0.0)
    with open(os.devnull):
        assert sample(os.getpid(), 0.0).handles == before.handles + 1
    assert before.megabytes > 10
    assert before.threads >= 1
