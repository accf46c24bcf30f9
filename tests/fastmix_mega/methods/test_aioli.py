"""Aioli's probes and mixtures by hand, and as a user runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.methods.aioli import (
    AioliController,
    AioliSection,
    aioli_effects,
    aioli_mixture,
    aioli_probe,
)
from tests.fastmix_mega.methods.resumed import require_same_after_resuming, searched_and_resumed
from tests.fastmix_mega.mixture.windows import sums_of

UNIFORM = np.full(3, 1 / 3)


def test_aioli_finds_the_effects_that_made_the_falls() -> None:
    """Falls that are linear in the mixture, under smoothed probes, give the coefficients back."""
    effects = np.array([0.3, -0.1, 0.2, 0.05])
    falls = np.array([aioli_probe(4, source, 0.75) @ effects for source in range(4)])
    np.testing.assert_allclose(aioli_effects(falls, 0.75), effects, atol=1e-12)
    # Its code's scaling: lifted by the least entry (-0.1), then of sum 1.
    wanted = np.exp(2 * np.array([0.4, 0.0, 0.3, 0.15]) / 0.85)
    found = aioli_mixture(np.full(4, 0.25), effects, 2.0)
    np.testing.assert_allclose(found, wanted / wanted.sum(), rtol=1e-12)


def test_aioli_probes_every_source_and_then_trains() -> None:
    effects = np.array([0.3, -0.1, 0.2])
    controller = AioliController(UNIFORM, AioliSection(sweeps=2), seed=3)
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


def test_a_restored_controller_goes_on_bit_for_bit() -> None:
    require_same_after_resuming(lambda: AioliController(UNIFORM, AioliSection(), seed=1))


@pytest.mark.distributed
def test_a_search_and_the_same_resumed(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["aioli"] = {"probe_steps": 2, "free_steps": 3}
    found, rows, _ = searched_and_resumed(settings | {"method": "aioli"}, tmp_path)
    # Rounds of four probes of 2 steps and 3 free ones.
    assert [row["step"] for row in rows] == [6, 8, 10, 12, 15, 17, 19, 21, 23]
    assert set(rows[0]["target_loss"]) == {"near", "far"}
    probes = [aioli_probe(4, source, 0.75).tolist() for source in range(4)]
    assert sorted(row["sampling"] for row in rows[:4]) == sorted(probes)
    cost = found.search["cost_in_proxy_runs"]
    assert cost == pytest.approx(1 + 10 * 4 / (3 * 24 * 8), abs=1e-3)
