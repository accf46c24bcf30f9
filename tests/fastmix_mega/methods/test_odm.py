"""ODM against its algorithm as the paper writes it, and as a user runs it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.methods.odm import ODMController, odm_exploration, odm_mixture, odm_rewards
from tests.fastmix_mega.methods.resumed import require_same_after_resuming, searched_and_resumed
from tests.fastmix_mega.mixture.windows import sums_of

UNIFORM = np.full(3, 1 / 3)


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


def test_a_restored_controller_goes_on_bit_for_bit() -> None:
    require_same_after_resuming(lambda: ODMController(UNIFORM))


@pytest.mark.distributed
def test_a_search_and_the_same_resumed(settings: dict[str, Any], tmp_path: Path) -> None:
    del settings["targets"]
    found, rows, _ = searched_and_resumed(settings | {"method": "odm"}, tmp_path)
    # Every step after the warm-up, from its own 8 sequences.
    assert [row["step"] for row in rows] == list(range(5, 25))
    assert all(sum(row["counts"]) == 8 for row in rows)
    assert found.search["cost_in_proxy_runs"] == 1.0
    assert all(
        row["sampling"] == before
        for row, before in zip(rows[1:], (row["mixture"] for row in rows), strict=False)
    )
