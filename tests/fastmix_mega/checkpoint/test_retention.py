from __future__ import annotations

from fastmix_mega.checkpoint.retention import to_remove

STEPS = [10, 20, 30, 40, 50]


def test_the_newest_stay() -> None:
    assert to_remove(STEPS, 2, 0, {}, False) == [10, 20, 30]


def test_milestones_stay() -> None:
    assert to_remove(STEPS, 1, 20, {}, False) == [10, 30]


def test_the_best_stays() -> None:
    losses = {10: 3.0, 20: 1.0, 30: 2.0, 99: 0.5}
    assert to_remove(STEPS, 1, 0, losses, True) == [10, 30, 40]
    assert to_remove(STEPS, 1, 0, losses, False) == [10, 20, 30, 40]
