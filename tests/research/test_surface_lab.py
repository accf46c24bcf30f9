from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastmix_mega.arrays import FloatArray
from research.surface_lab import Constants, Slopes, Values, design, fit

COUNT = 6
HARMFUL = 2


def law(mixture: FloatArray) -> tuple[float, FloatArray]:
    """Convex, least inside the simplex, fond of source 2."""
    worth = np.array([1.0, 0.5, 3.0, 0.2, 0.1, 0.8])
    known = worth * mixture + 0.05
    return -float((worth * np.log(known)).sum()) / 5, -(worth**2 / known) / 5


def truth(mixture: FloatArray, discrepancy: FloatArray, constants: Constants) -> float:
    return float(design(mixture, law, constants) @ np.concatenate(([3.0, 1.0], discrepancy)))


def evidence(
    discrepancy: FloatArray, constants: Constants, noise: float = 1e-3
) -> tuple[Slopes, Values]:
    """Of a world in which the surface is exactly of its own form."""
    even = np.full(COUNT, 1 / COUNT)
    slopes = -law(even)[1] + discrepancy
    found = Slopes(slopes - slopes.mean(), np.full(COUNT, noise))
    return found, Values(even[None], np.array([truth(even, discrepancy, constants)]))


def test_small_evidence_against_one_source_frees_it_alone() -> None:
    constants = replace(Constants(), slope_bias=0.3, scale=0.05)
    discrepancy = np.zeros(COUNT)
    discrepancy[HARMFUL] = -4.0
    slopes, values = evidence(discrepancy, constants)
    surface = fit(law, slopes, values, constants)
    found = surface.mean[2:]
    assert found[HARMFUL] < -2.0
    assert np.abs(np.delete(found, HARMFUL)).max() < 0.7
    free = fit(law, None, values, constants).best()
    assert free[HARMFUL] == max(free)
    assert surface.best()[HARMFUL] < 0.06


def test_posterior_without_heavy_tails_is_that_of_ridge_regression() -> None:
    # With very many degrees of freedom the prior of every discrepancy is a Gaussian of one scale.
    constants = replace(Constants(), freedom=1e9, misfit=0.0)
    dice = np.random.default_rng(1)
    mixtures = dice.dirichlet(np.ones(COUNT), 30)
    values = Values(mixtures, dice.normal(3, 0.2, 30))
    surface = fit(law, None, values, constants)
    rows = np.array([design(mixture, law, constants) for mixture in mixtures])
    prior = np.diag([1e-2, constants.beta_spread**-2, *[constants.scale**-2] * COUNT])
    centre = np.array([values.losses.mean(), constants.beta, *[0.0] * COUNT])
    precision = rows.T @ rows / constants.level_noise**2 + prior
    right = rows.T @ values.losses / constants.level_noise**2 + prior @ centre
    np.testing.assert_allclose(surface.mean, np.linalg.solve(precision, right), rtol=1e-6)
    np.testing.assert_allclose(surface.covariance, np.linalg.inv(precision), rtol=1e-5, atol=1e-9)


def test_gradient_is_that_of_the_prediction_and_best_is_a_minimum() -> None:
    constants = Constants()
    discrepancy = np.array([0.5, -0.2, -1.0, 0.1, 0.0, 0.3])
    surface = fit(law, *evidence(discrepancy, constants), constants)
    mixture = np.random.default_rng(2).dirichlet(np.ones(COUNT))
    gradient = surface.gradient(mixture)
    for place in range(COUNT):
        moved = 1e-6 * np.eye(COUNT)[place]
        above, below = surface.predict(np.array([mixture + moved, mixture - moved]))[0]
        assert gradient[place] == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-6)
    others = np.random.default_rng(3).dirichlet(np.ones(COUNT), 200)
    least = surface.predict(surface.best()[None])[0][0]
    assert least <= surface.predict(others)[0].min() + 1e-6


def test_predictions_hold_what_was_seen_and_are_less_sure_far_from_it() -> None:
    constants = Constants()
    surface = fit(law, *evidence(np.zeros(COUNT), constants), constants)
    even = np.full(COUNT, 1 / COUNT)
    corner = np.full(COUNT, 0.01) + 0.94 * np.eye(COUNT)[0]
    losses, errors = surface.predict(np.array([even, corner]))
    assert losses[0] == pytest.approx(3.0, abs=0.03)
    assert errors[1] > 1.5 * errors[0]
