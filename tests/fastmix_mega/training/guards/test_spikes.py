from __future__ import annotations

import numpy as np
import pytest

from fastmix_mega.training.guards.spikes import LossSpikes, describe_spike


def events(losses: list[float], limit: float = 5.0) -> list[int]:
    guard = LossSpikes(limit, ["a", "b"])
    found = (guard.check(step, loss, [loss, None]) for step, loss in enumerate(losses))
    return [event["step"] for event in found if event is not None]


def test_noise_and_a_falling_loss_are_no_spikes() -> None:
    random = np.random.default_rng(0)
    falling = 2 + 6 * np.exp(-np.arange(2000) / 100)
    assert events(list(falling + random.normal(0, 0.05, 2000))) == []


def test_spikes_are_found_and_do_not_hide_one_another() -> None:
    losses = np.random.default_rng(1).normal(3, 0.05, 200)
    losses[[50, 60, 150]] = (5, 5, 4)
    assert events(list(losses)) == [50, 60, 150]
    assert events(list(losses), limit=0) == []


def test_a_lasting_rise_is_learned() -> None:
    losses = np.random.default_rng(2).normal(3, 0.05, 200)
    losses[100:] += 1
    found = events(list(losses))
    assert found[0] == 100
    assert found[-1] < 120


def test_z_equals_an_exponentially_weighted_z_score() -> None:
    losses = np.random.default_rng(3).normal(3, 0.05, 30)
    guard = LossSpikes(5, ["a"])
    for loss in losses:
        assert guard.check(0, loss, [None]) is None
    event = guard.check(31, 9.0, [9.0])
    assert event is not None
    # The first ten lines have equal weights; each one after takes a tenth from all before.
    weights = np.r_[np.full(10, 0.1) * 0.9**20, 0.1 * 0.9 ** np.arange(19, -1, -1)]
    mean = weights @ losses
    deviation = np.sqrt(weights @ (losses - mean) ** 2)
    assert event["z"] == pytest.approx((9.0 - mean) / deviation)
    assert "highest: a 9.000" in describe_spike(event)


def test_state_round_trips() -> None:
    losses = list(np.random.default_rng(4).normal(3, 0.05, 40))
    whole, first, second = (LossSpikes(5, ["a"]) for _ in range(3))
    for loss in losses:
        whole.check(0, loss, [None])
    for loss in losses[:20]:
        first.check(0, loss, [None])
    second.load(first.state())
    for loss in losses[20:]:
        second.check(0, loss, [None])
    assert second.state() == whole.state()
