from __future__ import annotations

import numpy as np
import pytest

from fastmix_mega.mixture.exponentiated_gradient import ExponentiatedGradient, RuleSettings
from research.quality.rules import (
    SETTINGS,
    QuickStart,
    averaged,
    evidence,
    replay,
    settled_at,
    windows,
)


def test_replaying_a_history_gives_the_search_again() -> None:
    """Sums, mixtures, result and evidence, from decayed means and counts alone."""
    random = np.random.default_rng(0)
    controller = ExponentiatedGradient(np.full(4, 0.25), RuleSettings(0.2, 0.7, 0.05))
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


def test_a_quick_start_is_the_mean_of_the_scores() -> None:
    """Logits are step / prior strength times the mean of the normalised scores and four zeros, up
    to 1 / prior_strength outer steps; without it they need that long to get there."""
    means = np.array([1.0, 0.0, -1.0])
    sums = np.stack((means * 5, means**2 * 5, np.full(3, 5.0), np.full(3, 5.0)))
    uniform, rule = np.full(3, 1 / 3), RuleSettings(0.2, 0.7, 0.05)
    quick, slow = QuickStart(uniform, rule), ExponentiatedGradient(uniform, rule)
    for number in range(1, 17):
        quick.update(sums)
        slow.update(sums)
        logits = np.log(quick.mixture)
        assert logits - logits[1] == pytest.approx(4 * means * number / (number + 4))
        assert slow.mixture[0] < quick.mixture[0]
    for _ in range(200):
        quick.update(sums)
        slow.update(sums)
    assert quick.mixture == pytest.approx(slow.mixture, rel=1e-3)
