"""The posterior over losses against closed forms, a general solver and simulated evidence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from fastmix_mega.mixture.ngram_loss import NgramLossModel, count_ngrams
from fastmix_mega.mixture.surface import LossSurface, SurfaceConstants, TargetPosterior, design
from fastmix_mega.mixture.surface_fit import Evidence, Slopes, fit

SOURCES = 5
EVEN = np.full(SOURCES, 1 / SOURCES)
GAUSSIAN = SurfaceConstants(freedom=1e9)
"""So many degrees of freedom that the prior of d is a Gaussian with the given scale."""


def ngrams(seed: int = 0) -> NgramLossModel:
    random = np.random.default_rng(seed)
    tables = random.dirichlet(np.full(20, 0.5), size=SOURCES + 2)
    rows = [random.choice(20, p=table, size=(60, 20)) for table in tables]
    whole = np.full(SOURCES, 1e5)
    counts = count_ngrams(rows[:SOURCES], rows[SOURCES:], 1, 20, whole)
    return NgramLossModel(counts, 1e4, 15.0, (30.0,))


def slopes_of(values: np.ndarray, error: float = 0.05) -> Slopes:
    return Slopes(values, np.full(SOURCES, error), np.full(SOURCES, 10.0))


def test_the_posterior_is_that_of_a_linear_model() -> None:
    """With a Gaussian prior: the textbook formula on the same rows, solved another way."""
    model, random = ngrams(), np.random.default_rng(1)
    slopes = slopes_of(random.normal(size=SOURCES))
    found = fit(EVEN, model, [Evidence(3.0, slopes), Evidence(2.0)], None, GAUSSIAN)

    # In covariance form: y ~ N(X m, X C X' + R).
    constants = GAUSSIAN
    centred = np.eye(SOURCES) - 1 / SOURCES
    of_ngrams = -model.losses(EVEN)[1][0]
    size = np.sqrt(np.mean((centred @ slopes.mean) ** 2))
    told = np.column_stack((np.zeros(SOURCES), centred @ of_ngrams, centred))
    x = np.vstack([np.eye(1, 2 + SOURCES), told])
    y = np.concatenate(([3.0], centred @ slopes.mean))
    noise = np.append(
        constants.level_error, np.hypot(slopes.standard_error, constants.slope_bias * size)
    )
    prior = np.diag([100.0, constants.beta_spread**2, *[constants.scale**2] * SOURCES])
    mean = np.array([3.0, constants.beta, *[0.0] * SOURCES])
    gain = prior @ x.T @ np.linalg.inv(x @ prior @ x.T + np.diag(noise**2))
    np.testing.assert_allclose(found.targets[0].mean, mean + gain @ (y - x @ mean), atol=1e-8)
    np.testing.assert_allclose(found.targets[0].covariance, prior - gain @ x @ prior, atol=1e-7)
    # The other target has its prior.
    np.testing.assert_allclose(found.targets[1].mean, [2.0, 1.0, *[0.0] * SOURCES], atol=1e-12)


def test_without_scores_the_best_mixture_is_that_of_the_ngrams() -> None:
    model = ngrams()
    weights = np.array([1.0, 3.0])
    found = fit(EVEN, model, [Evidence(3.0), Evidence(2.0)]).best(weights)
    best = minimize(
        lambda x: float(weights @ model.losses(np.abs(x) / np.abs(x).sum())[0]),
        EVEN,
        method="Nelder-Mead",
        options={"maxiter": 20_000, "xatol": 1e-8, "fatol": 1e-12},
    )
    np.testing.assert_allclose(found, np.abs(best.x) / np.abs(best.x).sum(), atol=2e-3)


def test_the_gradient_is_the_derivative() -> None:
    found = fit(EVEN, ngrams(), [Evidence(3.0, slopes_of(np.arange(5.0))), Evidence(2.0)])
    weights, mixture = np.array([1.0, 2.0]), np.array([0.3, 0.1, 0.2, 0.15, 0.25])
    _, gradient = found.objective(mixture, weights)
    for source in range(SOURCES):
        step = 1e-6 * np.eye(SOURCES)[source]
        above, below = (found.objective(mixture + sign * step, weights)[0] for sign in (1, -1))
        assert gradient[source] == pytest.approx((above - below) / 2e-6, rel=1e-5)


def test_one_source_that_fools_the_ngrams_is_outvoted() -> None:
    """Scores say of every source what n-grams say, but of one the contrary: only that is set
    free, and it leaves the best mixture."""
    model = ngrams()
    of_ngrams = -model.losses(EVEN)[1][0]
    liar = int(of_ngrams.argmax())
    measured = of_ngrams - of_ngrams.mean()
    measured[liar] = -3.0
    constants = SurfaceConstants(scale=0.1, slope_bias=0.1)
    honest = fit(EVEN, model, [Evidence(3.0, slopes_of(of_ngrams)), Evidence(3.0)], None, constants)
    fooled = fit(EVEN, model, [Evidence(3.0, slopes_of(measured)), Evidence(3.0)], None, constants)
    weights = np.array([1.0, 0.0])
    assert honest.best(weights)[liar] > 0.3
    assert fooled.best(weights)[liar] < 0.02
    discrepancy = np.abs(fooled.targets[0].mean[2:])
    assert discrepancy[liar] > 4 * np.delete(discrepancy, liar).max()


def test_limits_hold() -> None:
    found = fit(EVEN, ngrams(), [Evidence(3.0), Evidence(2.0)])

    def project(mixture: np.ndarray) -> np.ndarray:
        capped = np.minimum(mixture, 0.25)
        free = mixture < 0.25
        capped[free] *= (1 - capped[~free].sum()) / capped[free].sum()
        return capped

    assert found.best(np.ones(2)).max() > 0.3
    assert found.best(np.ones(2), project).max() < 0.25 + 1e-9


def test_intervals_hold_what_they_say() -> None:
    """Truths drawn from the model itself: about 90% of the losses are within their 90% interval."""
    model, random = ngrams(), np.random.default_rng(5)
    constants = SurfaceConstants(
        freedom=1e9,
        misfit=0.05,
        level_noise=0.02,
        level_error=0.02,
        slope_bias=0.1,
        bend=0.05,
    )
    mixtures = random.dirichlet(np.ones(SOURCES), size=20)
    rows = design(mixtures, EVEN, model, 2, constants.bend)[:, 0]
    moved = 0.5 * np.abs(mixtures - EVEN).sum(axis=1)
    centred = np.eye(SOURCES) - 1 / SOURCES
    of_ngrams = -model.losses(EVEN)[1][0]
    hits = []
    for _ in range(200):
        truth = np.array(
            [3.0, random.normal(1, constants.beta_spread), *random.normal(0, constants.scale, 5)]
        )
        exact = centred @ (truth[1] * of_ngrams + truth[2:])
        error = 0.1
        slopes = Slopes(
            exact + random.normal(0, error, SOURCES),
            np.full(SOURCES, error),
            np.full(SOURCES, 9.0),
        )
        level = 3.0 + random.normal(0, constants.level_error)
        losses = rows @ truth + random.normal(
            0, np.hypot(constants.level_noise, constants.misfit * moved)
        )
        evidence = [Evidence(level, slopes), Evidence(3.0)]
        predicted = fit(EVEN, model, evidence, None, constants).predict(mixtures)
        distance = np.abs(losses - predicted.mean[:, 0]) / predicted.deviation[:, 0]
        hits.append(distance < 1.645)
    # The slopes' lasting error is in the intervals and not in the simulation.
    assert 0.88 < np.mean(hits) < 0.97


def test_the_probability_of_being_better() -> None:
    posterior = TargetPosterior(np.array([3.0, 0.0, 1.0, 0, 0, 0, 0]), 1e-6 * np.eye(7))
    found = LossSurface(EVEN, None, [posterior], SurfaceConstants())
    more = np.array([0.6, 0.1, 0.1, 0.1, 0.1])
    assert found.probability_better(more, EVEN, np.ones(1)) > 0.99
    assert found.probability_better(EVEN, more, np.ones(1)) < 0.01
    assert found.probability_better(EVEN, EVEN, np.ones(1)) == 0.5


def test_scores_that_are_all_the_same_move_nothing() -> None:
    """Their noise is 0 too, so that the precision is singular to the last bit."""
    for count in (1, 2, 7, 40):
        even = np.full(count, 1 / count)
        slopes = Slopes(np.full(count, 0.3), np.zeros(count), np.ones(count))
        found = fit(even, None, [Evidence(3.0, slopes)])
        assert np.isfinite(found.targets[0].covariance).all()
        np.testing.assert_allclose(found.best(np.ones(1)), even, atol=1e-3)
