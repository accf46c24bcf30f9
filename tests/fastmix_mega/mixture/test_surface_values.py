"""Finished runs as evidence: against conditioning by hand, and against runs made by the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastmix_mega.mixture.misfit import Misfit
from fastmix_mega.mixture.surface import SurfaceConstants, design
from fastmix_mega.mixture.surface_fit import Evidence, Slopes, fit
from fastmix_mega.mixture.surface_values import OWN, Values

SOURCES = 4
EVEN = np.full(SOURCES, 1 / SOURCES)
GAUSSIAN = SurfaceConstants(freedom=1e9)
NOTHING = [Evidence(3.0)]


def values_of(
    mixtures: np.ndarray, losses: np.ndarray, group: int = OWN, short: bool = False
) -> Values:
    count = len(mixtures)
    single = np.reshape(losses, (count, 1))
    return Values(mixtures, single, np.full(count, group), np.full(count, short))


def test_a_prediction_is_a_gaussian_conditioned_on_the_runs() -> None:
    """Everything at once: losses at known and new mixtures are jointly Gaussian."""
    random = np.random.default_rng(0)
    mixtures = random.dirichlet(np.ones(SOURCES), size=9)
    known, new = mixtures[:6], mixtures[6:]
    losses = 3 + random.normal(0, 0.1, 6)
    slopes = Slopes(random.normal(size=SOURCES), np.full(SOURCES, 0.1), np.ones(SOURCES))
    found = fit(EVEN, None, [Evidence(3.0, slopes)], values_of(known, losses), GAUSSIAN)

    before = fit(EVEN, None, [Evidence(3.0, slopes)], None, GAUSSIAN).targets[0]
    rows = design(mixtures, EVEN, None, 1, GAUSSIAN.bend)[:, 0]
    misfit = Misfit(EVEN, GAUSSIAN.misfit, GAUSSIAN.misfit_length)
    whole = rows @ before.covariance @ rows.T + misfit.covariance(mixtures, mixtures)
    known_runs = found.targets[0].known
    assert known_runs is not None
    assert found.noise(0) == known_runs.noise
    seen = whole[:6, :6] + known_runs.noise**2 * np.eye(6)
    gain = whole[6:, :6] @ np.linalg.inv(seen)
    mean = rows[6:] @ before.mean + gain @ (losses - rows[:6] @ before.mean)
    spread = whole[6:, 6:] - gain @ whole[:6, 6:]
    predicted = found.predict(new)
    np.testing.assert_allclose(predicted.mean[:, 0], mean, atol=1e-8)
    deviation = np.sqrt(np.diag(spread) + known_runs.noise**2)
    np.testing.assert_allclose(predicted.deviation[:, 0], deviation, atol=1e-8)
    means, deviations = found.differences(new[0], new[1])
    assert means[0] == pytest.approx(mean[0] - mean[1], abs=1e-8)
    apart = spread[0, 0] + spread[1, 1] - 2 * spread[0, 1]
    assert deviations[0] == pytest.approx(np.sqrt(apart), abs=1e-8)

    # The descent sees the same surface, and its derivatives.
    loss, gradient = found.objective(new[0], np.ones(1))
    assert loss == pytest.approx(mean[0], abs=1e-8)
    for source in range(SOURCES):
        step = 1e-6 * np.eye(SOURCES)[source]
        above, below = (found.objective(new[0] + sign * step, np.ones(1))[0] for sign in (1, -1))
        assert gradient[source] == pytest.approx((above - below) / 2e-6, rel=1e-4)


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.1])
def test_runs_say_how_noisy_they_are(noise: float) -> None:
    random = np.random.default_rng(3)
    mixtures = random.dirichlet(np.ones(SOURCES), size=60)
    truth = np.array([3.0, 0.0, 0.1, -0.1, 0.1, -0.1])
    losses = design(mixtures, EVEN, None, 1, GAUSSIAN.bend)[:, 0] @ truth
    losses += random.normal(0, noise, len(losses))
    found = fit(EVEN, None, NOTHING, values_of(mixtures, losses), GAUSSIAN)
    assert noise / 1.5 < found.noise(0) < 1.5 * noise
    # One run cannot say it.
    single = fit(EVEN, None, NOTHING, values_of(mixtures[:1], losses[:1]), GAUSSIAN)
    assert single.noise(0) == GAUSSIAN.level_noise
    assert fit(EVEN, None, NOTHING, None, GAUSSIAN).noise(0) == GAUSSIAN.level_noise


def test_noise_is_no_excuse_for_a_source_that_lies() -> None:
    """A worth of -4 nats, where the prior has 0.2: the source is set free all the same."""
    random = np.random.default_rng(4)
    mixtures = random.dirichlet(np.ones(SOURCES), size=8)
    losses = design(mixtures, EVEN, None, 1, 0.02)[:, 0] @ np.array([3.0, 0.0, -4.0, 0, 0, 0])
    losses += random.normal(0, 0.02, len(losses))
    found = fit(EVEN, None, NOTHING, values_of(mixtures, losses), SurfaceConstants())
    assert found.targets[0].mean[2] == pytest.approx(-4, abs=0.3)


def test_runs_of_another_kind_tell_differences_and_no_level() -> None:
    """In other units, from another level: the same predictions as from the search's own."""
    random = np.random.default_rng(1)
    mixtures = random.dirichlet(np.ones(SOURCES), size=40)
    truth = np.array([3.0, 0.0, 0.5, -0.3, 0.2, -0.4])
    losses = design(mixtures, EVEN, None, 1, GAUSSIAN.bend)[:, 0] @ truth
    foreign = 5 + losses / 2.5
    own = fit(EVEN, None, NOTHING, values_of(mixtures[:30], losses[:30]), GAUSSIAN)
    other = fit(EVEN, None, NOTHING, values_of(mixtures[:30], foreign[:30], 1), GAUSSIAN)
    new, wanted = mixtures[30:], losses[30:]
    np.testing.assert_allclose(own.predict(new).mean[:, 0], wanted, atol=0.03)
    # How large a nat there is here is not told exactly.
    centred = other.predict(new).mean[:, 0] - other.predict(EVEN[None]).mean[0, 0]
    assert np.corrcoef(centred, wanted)[0, 1] > 0.98
    # The level is the search's own.
    assert other.predict(EVEN[None]).mean[0, 0] == pytest.approx(3.0, abs=0.01)
    assert np.abs(other.best(np.ones(1)) - own.best(np.ones(1))).max() < 0.1


def test_short_branches_are_wrong_however_well_they_are_measured() -> None:
    """In units of their own, from a level of their own, each with an error of 0.7 of their spread:
    as branches their intervals hold, as whole runs of another kind they do not."""
    random, held = np.random.default_rng(0), {True: 0, False: 0}
    constants, new = replace(GAUSSIAN, misfit=1e-6), random.dirichlet(np.ones(SOURCES), size=10)
    mixtures = np.concatenate((EVEN[None], 0.5 * EVEN + 0.5 * np.eye(SOURCES)))
    for _ in range(40):
        worth = random.normal(0, GAUSSIAN.scale, SOURCES)
        truth = np.concatenate(([3.0, 0.0], worth))
        told = design(mixtures, EVEN, None, 1, GAUSSIAN.bend)[:, 0] @ truth
        told += random.normal(0, 0.7 * told.std(), len(told))
        wanted = design(new, EVEN, None, 1, GAUSSIAN.bend)[:, 0] @ truth
        scores = worth + random.normal(0, 0.7 * worth.std(), SOURCES)
        evidence = [Evidence(3.0, Slopes(scores, np.full(SOURCES, 0.01), np.ones(SOURCES)))]
        for short in held:
            values = values_of(mixtures, 2.8 + told / 6, 1, short)
            found = fit(EVEN, None, evidence, values, constants)
            for mixture, loss in zip(new, wanted, strict=True):
                mean, deviation = (each[0] for each in found.differences(mixture, EVEN))
                held[short] += abs(mean - (loss - 3.0)) < 1.645 * deviation
    assert held[True] > 0.8 * 40 * len(new)
    assert held[False] < 0.75 * 40 * len(new)


def test_a_run_that_does_not_know_a_target_says_nothing_of_it() -> None:
    mixtures = np.random.default_rng(2).dirichlet(np.ones(SOURCES), size=3)
    losses = np.column_stack((np.full(3, 2.5), np.full(3, np.nan)))
    values = Values(mixtures, losses, np.full(3, OWN), np.full(3, False))
    found = fit(EVEN, None, [Evidence(3.0), Evidence(4.0)], values, GAUSSIAN)
    assert found.predict(mixtures[:1]).mean[0, 0] < 2.8
    assert found.predict(mixtures[:1]).mean[0, 1] == pytest.approx(4.0)
