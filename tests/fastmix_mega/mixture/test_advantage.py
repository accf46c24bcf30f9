from __future__ import annotations

import math

import numpy as np
import pytest

from fastmix_mega.mixture.advantage import CONFIDENT, LEAST_OUTER_STEPS, Advantages, drift
from fastmix_mega.mixture.exponentiated_gradient import ExponentiatedGradient, RuleSettings

SOURCES = 6


def search(
    random: np.random.Generator, means: np.ndarray, outer_steps: int, shared: float = 0.0
) -> ExponentiatedGradient:
    """Windows of 8 scores per source, with noise per score and noise that a window's target
    sequences share: every source's score then moves by its own, fixed multiple of it."""
    settings = RuleSettings(step=0.2, decay=0.7, prior_strength=0.05)
    controller = ExponentiatedGradient(np.full(SOURCES, 1 / SOURCES), settings)
    directions = random.standard_normal(SOURCES)
    for _ in range(outer_steps):
        centre = means + shared * random.standard_normal() * directions
        values = centre[:, None] + random.standard_normal((SOURCES, 8))
        count = np.full(SOURCES, 8.0)
        controller.update(np.stack((values.sum(1), (values**2).sum(1), count, count)))
    return controller


@pytest.mark.parametrize("shared", [0.0, 3.0])
@pytest.mark.parametrize("outer_steps", [12, 40])
def test_noise_is_rarely_taken_for_an_advantage(shared: float, outer_steps: int) -> None:
    """Among searches without anything to find about 1 in 20 is called better, whatever the
    noise; the standard errors of single sources know nothing of the noise of the target."""
    random = np.random.default_rng(0)
    found = [
        search(random, np.zeros(SOURCES), outer_steps, shared).result().better for _ in range(200)
    ]
    wrong = np.mean([probability is not None and probability > CONFIDENT for probability in found])
    assert 0.01 < wrong < 0.1


def test_a_clear_advantage_is_found() -> None:
    random = np.random.default_rng(1)
    means = np.array([0.5, 0.2, 0.0, 0.0, -0.2, -0.5])
    found = [search(random, means, 40).result().better for _ in range(50)]
    assert np.mean([probability > CONFIDENT for probability in found if probability]) > 0.95


def test_sums_and_squares_are_those_of_the_definition() -> None:
    evidence = Advantages()
    assert evidence.sigmas is None
    assert evidence.probability is None
    initial = np.array([0.5, 0.25, 0.25])
    mixtures = np.array([[0.6, 0.2, 0.2], [0.3, 0.3, 0.4]])
    # The second window never saw the last source: it counts as the mean of the others, (3 + 1) / 2.
    for mixture, total, count in zip(
        mixtures, ([4.0, 2.0, 6.0], [3.0, 1.0, 0.0]), ([2, 2, 3], [1, 1, 0]), strict=True
    ):
        evidence.add(mixture, initial, np.array([total, [0, 0, 0], count]))
    first = 0.1 * 2 - 0.05 * 1 - 0.05 * 2
    second = -0.2 * 3 + 0.05 * 1 + 0.15 * 2
    assert evidence.advantages == pytest.approx([first, second])
    sigmas = (first + second) / math.hypot(first, second)
    assert evidence.sigmas == pytest.approx(sigmas)
    assert evidence.probability == pytest.approx(0.5 * (1 + math.erf(sigmas / math.sqrt(2))))


def test_drift_is_what_moved_between_the_last_quarters() -> None:
    early, late = np.log([0.5, 0.3, 0.2]), np.log([0.4, 0.3, 0.3])
    steps = [np.log([0.9, 0.05, 0.05])] * 8 + [early] * 4 + [late] * 4
    assert drift(np.array(steps)) == pytest.approx(0.1)
    assert drift(np.array([late] * LEAST_OUTER_STEPS)) == pytest.approx(0)
    assert drift(np.array([late] * (LEAST_OUTER_STEPS - 1))) == math.inf
