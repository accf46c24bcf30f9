"""DoGE's rule by hand, and as a user runs it without targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.methods.doge import DoGEController, doge_mixture
from tests.fastmix_mega.methods.resumed import require_same_after_resuming, searched_and_resumed
from tests.fastmix_mega.mixture.windows import sums_of


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


def test_a_restored_controller_goes_on_bit_for_bit() -> None:
    require_same_after_resuming(
        lambda: DoGEController(np.full(3, 1 / 3), mu=0.05, rate=lambda number: 0.01 * number)
    )


@pytest.mark.distributed
def test_a_search_and_the_same_resumed(settings: dict[str, Any], tmp_path: Path) -> None:
    del settings["targets"]  # The objective is the sum over the sources then.
    found, rows, _ = searched_and_resumed(settings | {"method": "doge"}, tmp_path)
    assert [row["step"] for row in rows] == [8, 12, 16, 20, 24]
    assert set(rows[0]["target_loss"]) == {f"{each.name}.target" for each in found.sources}
    assert np.allclose([row["sampling"] for row in rows], 0.25)
    assert found.search["cost_in_proxy_runs"] == pytest.approx(1 + 5 * 4 / (24 * 8), abs=1e-3)
