"""The rule of `method: fastmix` against what it promises, and against repetitions of the truth."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.advantage import LEAST_OUTER_STEPS
from fastmix_mega.mixture.exponentiated_gradient import (
    ExponentiatedGradient,
    Repetition,
    RuleSettings,
)
from tests.fastmix_mega.mixture.windows import window

UNIFORM = np.full(3, 1 / 3)


def rule(
    initial: FloatArray,
    step: float = 0.2,
    decay: float = 0.7,
    repetition: Repetition | None = None,
    **settings: Any,
) -> ExponentiatedGradient:
    return ExponentiatedGradient(
        initial, RuleSettings(step=step, decay=decay, **settings), repetition=repetition
    )


@pytest.mark.parametrize("limited", [False, True])
def test_state_round_trip(limited: bool) -> None:
    """A rule restored in the middle goes on bit for bit, with constraints and without."""
    random = np.random.default_rng(0)
    means = np.array([1.0, 0.0, -1.0])
    windows = [window(random, means) for _ in range(10)]

    def bounded(mixture: FloatArray) -> FloatArray:
        capped = np.minimum(mixture, 0.4)
        capped[1] += 1 - capped.sum()
        return capped

    def new() -> ExponentiatedGradient:
        settings = RuleSettings(step=0.2, decay=0.7, prior_strength=0.05, settles_at=0.2)
        return ExponentiatedGradient(
            UNIFORM,
            settings,
            project=bounded if limited else None,
            repetition=Repetition(np.array([30.0, 1.0, 1.0])),
        )

    whole, first, second = new(), new(), new()
    for sums in windows:
        whole.update(sums)
    for sums in windows[:4]:
        first.update(sums)
    second.load(pickle.loads(pickle.dumps(first.state())))
    for sums in windows[4:]:
        second.update(sums)
    assert second.outer_step == 10
    assert np.array_equal(second.mixture, whole.mixture)
    assert np.array_equal(second.standard_errors, whole.standard_errors)
    found, wanted = second.result(), whole.result()
    assert np.array_equal(found.weights, wanted.weights)
    assert np.array_equal(found.standard_errors, wanted.standard_errors)
    assert found.better == wanted.better
    assert (found.free is not None) == limited
    assert np.array_equal(found.free, wanted.free)
    assert second.row() == whole.row()
    assert second.settled == whole.settled


def test_better_sources_gain() -> None:
    random = np.random.default_rng(1)
    controller = rule(UNIFORM)
    for _ in range(30):
        controller.update(window(random, np.array([0.5, 0.0, -2.0])))
    weights = controller.result().weights
    assert weights[0] > weights[1] > weights[2]
    assert weights[2] < 0.03
    assert weights.sum() == pytest.approx(1)


def test_scores_of_a_source_that_repeats_fade() -> None:
    """Two sources with the same scores: the one with 20 epochs at the same share gets less."""
    means = np.array([3.0, 3.0, 2.0])
    windows = [window(np.random.default_rng(number), means, 2000) for number in range(20)]
    plain = rule(UNIFORM)
    fresh = rule(UNIFORM, repetition=Repetition(np.array([1.0, 1.0, 1.0])))
    repeated = rule(UNIFORM, repetition=Repetition(np.array([60.0, 1.0, 1.0]), 15))
    for sums in windows:
        for controller in (plain, fresh, repeated):
            controller.update(sums)
    np.testing.assert_array_equal(fresh.mixture, plain.mixture)
    assert plain.mixture[0] == pytest.approx(plain.mixture[1], rel=0.2)
    assert repeated.mixture[0] < 0.6 * repeated.mixture[1]
    # Harm does not fade.
    harmful = rule(UNIFORM, repetition=Repetition(np.array([60.0, 1.0, 1.0])))
    plain = rule(UNIFORM)
    sums = window(np.random.default_rng(0), np.array([-3.0, 1.0, 2.0]), 2000)
    harmful.update(sums)
    plain.update(sums)
    np.testing.assert_array_equal(harmful.mixture, plain.mixture)


def test_a_source_with_too_many_epochs_gets_no_more() -> None:
    """The best source is tiny: it grows to 8 epochs."""
    initial = np.array([0.05, 0.45, 0.5])
    epochs = np.array([80.0, 1.0, 1.0])
    controller = rule(initial, repetition=Repetition(epochs, 1e9))
    free = rule(initial, repetition=Repetition(np.ones(3), 1e9))
    seen = []
    for number in range(30):
        sums = window(np.random.default_rng(number), np.array([3.0, 1.0, 0.5]), 2000)
        controller.update(sums)
        free.update(sums)
        seen.append(float((epochs * controller.mixture)[0]))
    assert (epochs * free.mixture)[0] > 30
    assert seen[0] > 4
    assert 6 < max(seen) < 8 * 1.1  # A step can carry it a little beyond.


def test_step_of_zero_keeps_the_mixture_to_the_last_bit() -> None:
    initial = np.array([0.4, 0.3, 0.2, 0.1])
    controller = rule(initial, step=0.0)
    for _ in range(3):
        controller.update(window(np.random.default_rng(0), np.arange(4.0)))
        assert np.array_equal(controller.mixture, initial)
    assert np.array_equal(controller.result().weights, initial)


def test_unseen_source_moves_with_the_average() -> None:
    controller = rule(UNIFORM)
    controller.update(np.array([[10.0, 0, -10.0], [20.0, 0, 20.0], [10, 0, 10], [10, 0, 10]]))
    weights = controller.mixture
    assert weights[0] > weights[1] > weights[2]


def test_standard_errors_match_the_spread_over_repetitions() -> None:
    """The same truth searched 200 times: the stated errors are the spread found, or a bit more.

    They are conservative for small weights: the scale of the update shares the scores' noise.
    """
    means = np.array([0.05, 0.0, -0.05])
    weights, errors = [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        controller = rule(UNIFORM, step=0.05, scale_decay=0.9)
        for _ in range(40):
            controller.update(window(random, means, count=400))
        result = controller.result()
        weights.append(result.weights)
        errors.append(result.standard_errors)
    spread, stated = np.std(weights, axis=0), np.mean(errors, axis=0)
    assert (stated > 0.8 * spread).all()
    assert (stated < 2 * spread).all()


def test_a_prior_bounds_what_constant_scores_can_do() -> None:
    """At rest the pull equals the push: log-weights settle at step / strength times the scores."""
    initial = np.array([0.6, 0.3, 0.1])
    controller = rule(initial, decay=0.0, prior_strength=0.1)
    sums = np.array([[10.0, 0.0, -10.0], [10.0, 0.0, 10.0], [10, 10, 10], [10, 10, 10]])
    for _ in range(200):
        controller.update(sums)
    moved = np.log(controller.mixture) - np.log(initial)
    np.testing.assert_allclose(moved - moved.mean(), [2.0, 0.0, -2.0], atol=1e-6)


def test_standard_errors_over_time_are_the_spread_over_repetitions() -> None:
    """The mixture after each of 25 updates, over 300 repetitions: conservative, within twice."""
    means, ends, errors = np.array([0.5, 0.0, -0.5]), [], []
    for seed in range(300):
        random = np.random.default_rng(seed)
        controller = rule(UNIFORM, prior_strength=0.05)
        for _ in range(25):
            controller.update(window(random, means, count=200))
        ends.append(controller.mixture)
        errors.append(controller.standard_errors)
    ratio = np.mean(errors, axis=0) / np.std(ends, axis=0)
    assert (ratio > 0.8).all(), ratio
    assert (ratio < 2.5).all(), ratio


def test_settled_once_nothing_moves_any_more() -> None:
    """Equal scores move nothing; it takes the outer steps that the drift needs, and a limit."""
    watched, unwatched = rule(UNIFORM, settles_at=0.01), rule(UNIFORM)
    sums = np.array([[4.0] * 3, [4.0] * 3, [4.0] * 3, [4.0] * 3])
    for number in range(1, LEAST_OUTER_STEPS + 1):
        watched.update(sums)
        unwatched.update(sums)
        assert watched.settled == (number == LEAST_OUTER_STEPS)
        assert not unwatched.settled
    moving = rule(UNIFORM, settles_at=0.01)
    for _ in range(LEAST_OUTER_STEPS):
        moving.update(window(np.random.default_rng(0), np.array([1.0, 0.0, -1.0])))
    assert not moving.settled
