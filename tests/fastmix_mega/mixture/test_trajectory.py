from __future__ import annotations

import numpy as np

from fastmix_mega.mixture.trajectory import Trajectory


def test_rows_come_back_in_order_beyond_the_first_allocation() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    trajectory = Trajectory(3)
    assert trajectory.rows.shape == (0, 3)
    for row in rows:
        trajectory.append(row)
    assert np.array_equal(trajectory.rows, rows)


def test_a_loaded_trajectory_grows_on_and_shares_no_memory() -> None:
    """At lengths around the allocation's, and for none at all."""
    rows = np.random.default_rng(0).normal(size=(20, 3))
    for length in (0, 1, 15, 16, 17):
        first, second = Trajectory(3), Trajectory(3)
        for row in rows[:length]:
            first.append(row)
        second.load(first.state())
        for row in rows[length:]:
            second.append(row)
        assert np.array_equal(second.rows, rows)
        assert np.array_equal(first.rows, rows[:length])
