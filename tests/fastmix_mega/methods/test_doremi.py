"""DoReMi's rule by hand, and the two runs as a user makes them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.methods.doremi import DoReMiController, doremi_mixture
from tests.fastmix_mega.methods.resumed import require_same_after_resuming, searched_and_resumed
from tests.fastmix_mega.mixture.windows import sums_of


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


def test_a_restored_controller_goes_on_bit_for_bit() -> None:
    require_same_after_resuming(lambda: DoReMiController(np.full(3, 1 / 3)))


@pytest.mark.distributed
def test_a_search_and_the_same_resumed(settings: dict[str, Any], tmp_path: Path) -> None:
    del settings["targets"]
    found, rows, run_dir = searched_and_resumed(settings | {"method": "doremi"}, tmp_path)
    # Every step after the warm-up, from its own 8 sequences.
    assert [row["step"] for row in rows] == list(range(5, 25))
    assert all(sum(row["counts"]) == 8 for row in rows)
    assert (run_dir / "reference" / "mixture.json").is_file()
    cost = found.search["cost_in_proxy_runs"]
    assert cost == pytest.approx(2 + 20 / 24 / 3, abs=1e-3)
    # Excess losses are clipped; the reference is a model like the proxy, so they are small.
    scores = np.array([row["scores"] for row in rows])
    assert (scores >= 0).all()
    assert 0 < scores.max() < 1
    assert np.allclose([row["sampling"] for row in rows], 0.25)
