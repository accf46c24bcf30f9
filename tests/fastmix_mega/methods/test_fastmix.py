from __future__ import annotations

import pickle

import numpy as np
import pytest

from fastmix_mega.config.sections import SearchSection
from fastmix_mega.methods.fastmix import (
    Controller,
    FastMixController,
    ReferenceController,
    build_controller,
)


def window(random: np.random.Generator, means: np.ndarray, count: int = 20) -> np.ndarray:
    """[4, S] sums of `count` noisy scores per source."""
    values = means[:, None] + random.standard_normal((len(means), count))
    counts = np.full(len(means), count)
    return np.stack((values.sum(1), (values**2).sum(1), counts, counts))


@pytest.mark.parametrize("method", ["fastmix", "reference"])
def test_state_round_trip(method: str) -> None:
    """A controller restored in the middle goes on bit for bit."""
    random = np.random.default_rng(0)
    means = np.array([1.0, 0.0, -1.0])
    uniform = np.full(3, 1 / 3)
    windows = [window(random, means) for _ in range(10)]
    whole: Controller = build_controller(method, SearchSection(), uniform)
    first: Controller = build_controller(method, SearchSection(), uniform)
    for sums in windows:
        whole.update(sums)
    for sums in windows[:4]:
        first.update(sums)
    second: Controller = build_controller(method, SearchSection(), uniform)
    second.load(pickle.loads(pickle.dumps(first.state())))
    for sums in windows[4:]:
        second.update(sums)
    assert second.outer_step == 10
    assert np.array_equal(second.mixture, whole.mixture)
    assert np.array_equal(second.standard_errors, whole.standard_errors)
    assert np.array_equal(second.result().weights, whole.result().weights)
    assert np.array_equal(second.result().standard_errors, whole.result().standard_errors)


def test_better_sources_gain() -> None:
    random = np.random.default_rng(1)
    controller = FastMixController(np.full(3, 1 / 3), step=0.2, decay=0.7)
    for _ in range(30):
        controller.update(window(random, np.array([0.5, 0.0, -2.0])))
    weights = controller.result().weights
    assert weights[0] > weights[1] > weights[2]
    assert weights[2] < 0.03
    assert weights.sum() == pytest.approx(1)


def test_scores_of_a_source_that_repeats_fade() -> None:
    """Two sources with the same scores: the one that would be read 20 times an epoch's share."""
    uniform = np.full(3, 1 / 3)
    means = np.array([3.0, 3.0, 2.0])
    windows = [window(np.random.default_rng(number), means, 2000) for number in range(20)]
    plain = FastMixController(uniform, step=0.2, decay=0.7)
    fresh = FastMixController(uniform, step=0.2, decay=0.7, epochs=np.array([1.0, 1.0, 1.0]))
    worn = FastMixController(
        uniform, step=0.2, decay=0.7, epochs=np.array([60.0, 1.0, 1.0]), repetitions=15
    )
    for sums in windows:
        for controller in (plain, fresh, worn):
            controller.update(sums)
    np.testing.assert_array_equal(fresh.mixture, plain.mixture)
    assert plain.mixture[0] == pytest.approx(plain.mixture[1], rel=0.2)
    assert worn.mixture[0] < 0.6 * worn.mixture[1]
    # Harm does not fade.
    harmful = FastMixController(uniform, 0.2, 0.7, epochs=np.array([60.0, 1.0, 1.0]))
    plain = FastMixController(uniform, 0.2, 0.7)
    sums = window(np.random.default_rng(0), np.array([-3.0, 1.0, 2.0]), 2000)
    harmful.update(sums)
    plain.update(sums)
    np.testing.assert_array_equal(harmful.mixture, plain.mixture)


def test_a_source_that_is_read_too_often_gets_no_more() -> None:
    """The best source is tiny: it grows to 8 readings."""
    initial = np.array([0.05, 0.45, 0.5])
    epochs = np.array([80.0, 1.0, 1.0])
    controller = FastMixController(initial, 0.2, 0.7, epochs=epochs, repetitions=1e9)
    free = FastMixController(initial, 0.2, 0.7, epochs=np.ones(3), repetitions=1e9)
    readings = []
    for number in range(30):
        sums = window(np.random.default_rng(number), np.array([3.0, 1.0, 0.5]), 2000)
        controller.update(sums)
        free.update(sums)
        readings.append(float((epochs * controller.mixture)[0]))
    assert (epochs * free.mixture)[0] > 30
    assert readings[0] > 4
    assert 6 < max(readings) < 8 * 1.1  # A step can carry it a little beyond.


def test_step_of_zero_keeps_the_mixture_to_the_last_bit() -> None:
    initial = np.array([0.4, 0.3, 0.2, 0.1])
    controller = FastMixController(initial, step=0.0, decay=0.7)
    for _ in range(3):
        controller.update(window(np.random.default_rng(0), np.arange(4.0)))
        assert np.array_equal(controller.mixture, initial)
    assert np.array_equal(controller.result().weights, initial)


def test_unseen_source_moves_with_the_average() -> None:
    controller = FastMixController(np.full(3, 1 / 3), step=0.2, decay=0.7)
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
        controller = FastMixController(np.full(3, 1 / 3), step=0.05, decay=0.7, scale_decay=0.9)
        for _ in range(40):
            controller.update(window(random, means, count=400))
        result = controller.result()
        weights.append(result.weights)
        errors.append(result.standard_errors)
    spread, stated = np.std(weights, axis=0), np.mean(errors, axis=0)
    assert (stated > 0.8 * spread).all()
    assert (stated < 2 * spread).all()


def test_reference_recipe_is_adam_on_the_logits() -> None:
    """Against torch's Adam with the gradient -lambda (s - lambda . s); absent sources score 0."""
    import torch

    controller = ReferenceController(np.full(3, 1 / 3), rate=0.1)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.1, betas=(0.9, 0.95))
    random = np.random.default_rng(4)
    for _ in range(5):
        count = np.array([2.0, 0.0, 1.0])
        scores = np.where(count > 0, random.standard_normal(3), 0)
        controller.update(np.stack((scores * count, scores**2 * count, count, count)))
        mixture = logits.detach().softmax(0).numpy()
        logits.grad = torch.from_numpy(-mixture * (scores - mixture @ scores))
        adam.step()
        np.testing.assert_allclose(controller.mixture, logits.detach().softmax(0), rtol=1e-9)


def test_a_prior_bounds_what_constant_scores_can_do() -> None:
    """At rest the pull equals the push: log-weights settle at step / strength times the scores."""
    initial = np.array([0.6, 0.3, 0.1])
    controller = FastMixController(initial, step=0.2, decay=0.0, prior_strength=0.1)
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
        controller = FastMixController(np.full(3, 1 / 3), 0.2, 0.7, prior_strength=0.05)
        for _ in range(25):
            controller.update(window(random, means, count=200))
        ends.append(controller.mixture)
        errors.append(controller.standard_errors)
    ratio = np.mean(errors, axis=0) / np.std(ends, axis=0)
    assert (ratio > 0.8).all(), ratio
    assert (ratio < 2.5).all(), ratio


def test_a_quick_start_is_the_mean_of_the_scores() -> None:
    """Logits are step / prior strength times the mean of the normalised scores and four zeros, up
    to 1 / prior_strength outer steps; without it they need that long to get there."""
    means = np.array([1.0, 0.0, -1.0])
    sums = np.stack((means * 5, means**2 * 5, np.full(3, 5.0), np.full(3, 5.0)))
    quick, slow = (
        FastMixController(
            np.full(3, 1 / 3), step=0.2, decay=0.7, prior_strength=0.05, quick_start=each
        )
        for each in (True, False)
    )
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


def test_standard_errors_of_a_quick_start() -> None:
    """Of the order of the spread over repetitions, as without it."""
    random = np.random.default_rng(5)
    means = np.array([0.3, 0.0, -0.3])
    found = []
    for _ in range(200):
        controller = FastMixController(
            np.full(3, 1 / 3), step=0.2, decay=0.7, prior_strength=0.05, quick_start=True
        )
        for _ in range(20):
            controller.update(window(random, means))
        found.append(controller.result())
    spread = np.std([each.weights for each in found], axis=0)
    told = np.mean([each.standard_errors for each in found], axis=0)
    assert (told > 0.8 * spread).all()
    assert (told < 2.5 * spread).all()
