"""The online baselines' rules against steps by hand and against loops as the papers write them."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from fastmix_mega.methods.online import (
    AioliController,
    DoGEController,
    DoReMiController,
    ODMController,
    aioli_effects,
    aioli_mixture,
    aioli_probe,
    doge_mixture,
    doremi_mixture,
    odm_exploration,
    odm_mixture,
    odm_rewards,
)

from fastmix_mega.methods.fastmix import Controller
from fastmix_mega.mixture.sampling import RoundSchedule

UNIFORM = np.full(3, 1 / 3)


def sums_of(values: list[float | None]) -> np.ndarray:
    """[4, S] sums of one observation each; None for a source that was not seen."""
    seen = np.array([value is not None for value in values], float)
    known = np.array([0.0 if value is None else value for value in values])
    return np.stack((known, known**2, seen, seen))


def test_odm_is_its_algorithm() -> None:
    """Algorithm 1 of the paper, turn by turn, with Python's own arithmetic."""
    rewards, probabilities, before = [0.0] * 3, [1 / 3] * 3, 1 / 3
    controller = ODMController(UNIFORM, smoothing=0.9)
    random = np.random.default_rng(0)
    for turn in range(1, 60):
        losses = random.uniform(2, 5, 3)
        losses[1] += 2
        controller.update(sums_of(losses.tolist()))
        for i in range(3):
            rewards[i] = 0.9 * rewards[i] + 0.1 * (losses[i] / 3) / probabilities[i]
        now = min(1 / 3, math.sqrt(math.log(3) / (3 * turn)))
        total = sum(math.exp(before * reward) for reward in rewards)
        probabilities = [
            (1 - 3 * now) * math.exp(before * reward) / total + now for reward in rewards
        ]
        before = now
        np.testing.assert_allclose(controller.mixture, probabilities, rtol=1e-12)
    # The hardest source is sampled most.
    assert controller.result().weights.argmax() == 1


def test_odm_explores_less_and_less() -> None:
    # Every source has at least e_t, and at first there is nothing but exploration.
    np.testing.assert_allclose(odm_mixture(np.array([9.0, 0, 0]), 1), UNIFORM)
    assert odm_exploration(9, 100) == pytest.approx(math.sqrt(math.log(9) / 900))
    assert odm_mixture(np.array([90.0, 0, 0]), 100).min() >= odm_exploration(3, 100) - 1e-12


def test_odm_keeps_the_reward_of_an_absent_source() -> None:
    found = odm_rewards(np.array([1.0, 2.0]), sums_of([None, 4.0]), np.array([0.5, 0.5]), 0.9)
    np.testing.assert_allclose(found, [1.0, 0.9 * 2 + 0.1 * 4 / 0.5])


def test_doremi_by_hand() -> None:
    """a * exp(1 * excess), normalised, and a thousandth of uniform."""
    raised = np.array([0.5 * math.e, 0.5])
    wanted = 0.999 * raised / raised.sum() + 0.0005
    found = doremi_mixture(np.array([0.5, 0.5]), np.array([1.0, 0.0]), 1.0, 1e-3)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)

    controller = DoReMiController(np.array([0.5, 0.5]))
    controller.update(sums_of([1.0, 0.0]))
    np.testing.assert_allclose(controller.mixture, wanted, rtol=1e-12)
    # The second source's last excess stays, and the answer is the mean over the updates.
    controller.update(sums_of([1.0, None]))
    second = doremi_mixture(wanted, np.array([1.0, 0.0]), 1.0, 1e-3)
    np.testing.assert_allclose(controller.result().weights, (wanted + second) / 2, rtol=1e-12)


def test_doge_by_hand() -> None:
    mixture = np.array([0.2, 0.3, 0.5])
    alignment = np.array([1.0, -1.0, 0.0])
    raised = mixture * np.exp(0.01 * alignment / 0.05)
    found = doge_mixture(mixture, alignment, 0.01, 0.05)
    np.testing.assert_allclose(found, raised / raised.sum(), rtol=1e-12)
    # A window of two steps with one W is two steps.
    twice = doge_mixture(found, alignment, 0.01, 0.05)
    controller = DoGEController(mixture, mu=0.05, rate=lambda outer_step: 0.02 + outer_step)
    controller.update(sums_of(alignment.tolist()))
    np.testing.assert_allclose(controller.mixture, twice, rtol=1e-12)


def test_aioli_finds_the_law_that_made_the_falls() -> None:
    """Falls of a linear law under smoothed probes give its coefficients back."""
    effects = np.array([0.3, -0.1, 0.2, 0.05])
    falls = np.array([aioli_probe(4, source, 0.75) @ effects for source in range(4)])
    np.testing.assert_allclose(aioli_effects(falls, 0.75), effects, atol=1e-12)
    # Its code's scaling: lifted by the least entry (-0.1), then of sum 1.
    wanted = np.exp(2 * np.array([0.4, 0.0, 0.3, 0.15]) / 0.85)
    found = aioli_mixture(np.full(4, 0.25), effects, 2.0)
    np.testing.assert_allclose(found, wanted / wanted.sum(), rtol=1e-12)


def test_aioli_probes_every_source_and_then_trains() -> None:
    effects = np.array([0.3, -0.1, 0.2])
    controller = AioliController(UNIFORM, step=1.0, share=0.75, sweeps=2, seed=3)
    base = UNIFORM
    for turn in range(3):
        probed = []
        for _ in range(6):
            source = controller.probed(controller.outer_step)
            assert source is not None
            probed.append(source)
            np.testing.assert_array_equal(controller.mixture, aioli_probe(3, source, 0.75))
            controller.update(sums_of([float(controller.mixture @ effects), None, None]))
        assert sorted(probed[:3]) == sorted(probed[3:]) == [0, 1, 2]
        base = aioli_mixture(base, effects, 1.0)
        np.testing.assert_allclose(controller.mixture, base, rtol=1e-12)
        assert controller.probed(7 * turn + 6) is None
        controller.update(sums_of([5.0, None, None]))  # The free window's fall plays no part.
    assert controller.result().weights.argmax() == 0


def test_rounds_have_windows_of_their_own_lengths() -> None:
    schedule = RoundSchedule(3, (2, 2, 5), 22)
    assert [step for step in range(22) if schedule.measures_target(step)] == [3, 5, 7, 12, 14, 16]
    assert [step for step in range(22) if schedule.updates_after(step)] == [4, 6, 11, 13, 15, 20]
    assert schedule.outer_steps == 6
    assert RoundSchedule(3, (9,), 8).outer_steps == 0


@pytest.mark.parametrize(
    "new",
    [
        lambda: ODMController(UNIFORM),
        lambda: DoReMiController(UNIFORM),
        lambda: DoGEController(UNIFORM, rate=lambda outer_step: 0.01 * outer_step),
        lambda: AioliController(UNIFORM, seed=1),
    ],
)
def test_a_restored_controller_goes_on_bit_for_bit(new: type[Controller]) -> None:
    random = np.random.default_rng(0)
    windows = [sums_of(random.uniform(0, 3, 3).tolist()) for _ in range(15)]
    whole, first, second = new(), new(), new()
    for sums in windows:
        whole.update(sums)
    for sums in windows[:6]:
        first.update(sums)
    second.load(pickle.loads(pickle.dumps(first.state())))
    for sums in windows[6:]:
        second.update(sums)
    assert np.array_equal(second.mixture, whole.mixture)
    assert np.array_equal(second.result().weights, whole.result().weights)
