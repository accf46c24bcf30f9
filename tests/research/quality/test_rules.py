from __future__ import annotations

import numpy as np
import pytest

from fastmix_mega.methods.fastmix import FastMixController
from research.quality.rules import SETTINGS, averaged, evidence, replay, settled_at, windows


def test_replaying_a_history_gives_the_search_again() -> None:
    """Sums, mixtures, result and evidence, from decayed means and counts alone."""
    random = np.random.default_rng(0)
    controller = FastMixController(np.full(4, 0.25), 0.2, 0.7, prior_strength=0.05)
    history, given = [], []
    for _ in range(20):
        count = random.integers(0, 5, 4).astype(float)
        total = count * random.normal(np.array([1.0, 0.0, 0.0, -1.0]), 1.0)
        given.append(np.stack((total, total**2, count, count)))
        estimate = controller.update(given[-1])
        history.append({"scores": estimate.mean.tolist(), "counts": count.tolist()})
    sums = windows(history, SETTINGS["decay"])
    for found, wanted in zip(sums, given, strict=True):
        assert found[[0, 2, 3]] == pytest.approx(wanted[[0, 2, 3]], abs=1e-9)
    trajectory = replay(sums, SETTINGS)
    result = controller.result()
    assert averaged(trajectory, SETTINGS["averaged"]) == pytest.approx(result.weights)
    assert evidence(sums, trajectory).probability == pytest.approx(result.better)


def test_a_still_trajectory_settles_at_once() -> None:
    assert settled_at(np.log(np.full((30, 4), 0.25)), 0.01) == 16
    moving = np.log(np.stack([np.linspace(0.1, 0.9, 30), np.linspace(0.9, 0.1, 30)], axis=1))
    assert settled_at(moving, 0.01) is None
