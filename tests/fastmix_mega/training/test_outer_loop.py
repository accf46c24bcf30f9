"""The outer loop: windows, updates, and what a checkpoint keeps, with a real rule."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.mixture.exponentiated_gradient import ExponentiatedGradient, RuleSettings
from fastmix_mega.mixture.outer_schedule import OuterSchedule
from fastmix_mega.mixture.sampling import MixturePolicy
from fastmix_mega.mixture.simplex import ScoreEstimate
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.resumable import Resumable
from fastmix_mega.training.outer_loop import OuterLoop

UNIFORM = np.full(3, 1 / 3)
SCHEDULE = OuterSchedule(warmup=2, every=3, window=2, steps=14)
"""Windows of the steps 2 and 3, 5 and 6, 8 and 9, 11 and 12."""


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    with parallel_layout.start(ParallelSection()) as started:
        yield started


class Made(Resumable):
    """An observer whose windows' sums follow from the window's number alone."""

    resumes = ("windows",)

    def __init__(self) -> None:
        self.windows = 0
        self.seconds = 0.5
        self.calls: list[tuple[Any, ...]] = []

    def start_window(self, step: int, outer_step: int) -> None:
        self.calls.append(("start", step, outer_step))

    def end_window(self, mixture: FloatArray) -> FloatArray:
        self.calls.append(("end", *mixture.round(6).tolist()))
        self.windows += 1
        random = np.random.default_rng(self.windows)
        values = np.array([1.0, 0.0, -1.0])[:, None] + random.standard_normal((3, 4))
        count = np.array([4, 4, 4])
        return np.stack((values.sum(1), (values**2).sum(1), count, count))

    def learn(self, step: int, mixture: FloatArray, estimate: ScoreEstimate) -> None:
        assert mixture.shape == estimate.mean.shape == (3,)
        self.calls.append(("learn", step))

    def row(self) -> dict[str, Any]:
        return {"windows": self.windows}


def new_loop(layout: Layout, settles_at: float = 0.0, **options: Any) -> OuterLoop[Made]:
    rule = ExponentiatedGradient(UNIFORM, RuleSettings(0.2, 0.7, settles_at=settles_at))
    policy = MixturePolicy(UNIFORM, exploration=0.5)
    return OuterLoop(layout, SCHEDULE, Made(), rule, policy, **options)


def advance(loop: OuterLoop[Made], steps: range) -> list[dict[str, Any]]:
    rows = []
    for step in steps:
        loop.before_step(step)
        row = loop.after_step(step)
        if row is not None:
            rows.append(row)
    return rows


def test_windows_end_with_an_update_and_a_line(layout: Layout) -> None:
    loop = new_loop(layout)
    alone = ExponentiatedGradient(UNIFORM, RuleSettings(0.2, 0.7))
    made = Made()
    rows = advance(loop, range(14))
    assert [row["step"] for row in rows] == [4, 7, 10, 13]
    assert [row["outer_step"] for row in rows] == [1, 2, 3, 4]
    before = UNIFORM
    for row in rows:
        estimate = alone.update(made.end_window(before))
        assert row["mixture"] == alone.mixture.tolist()
        assert row["sampling"] == pytest.approx((0.5 * before + 0.5 / 3).tolist())
        assert row["scores"] == estimate.mean.tolist()
        assert row["score_stderr"] == estimate.standard_error.tolist()
        assert row["counts"] == [4, 4, 4]
        assert row["mixture_stderr"] == alone.standard_errors.tolist()
        assert row["seconds"] >= 0.5
        before = alone.mixture
    assert [row["windows"] for row in rows] == [1, 2, 3, 4]
    starts = [call[1:] for call in loop.observer.calls if call[0] == "start"]
    assert starts == [(2, 0), (5, 1), (8, 2), (11, 3)]
    assert [call[1] for call in loop.observer.calls if call[0] == "learn"] == [3, 6, 9, 12]
    np.testing.assert_array_equal(loop.policy.mixture, alone.mixture)
    np.testing.assert_array_equal(loop.result().weights, alone.result().weights)
    assert not loop.finished


@pytest.mark.parametrize("cut", [1, 3, 4, 6, 9])
def test_resumed_anywhere_it_goes_on_bit_for_bit(layout: Layout, cut: int) -> None:
    """Before, within, and between windows."""
    whole, first, second = (new_loop(layout) for _ in range(3))
    rows = advance(whole, range(14))
    found = advance(first, range(cut))
    second.load(pickle.loads(pickle.dumps(first.state())))
    found += advance(second, range(cut, 14))
    for row, wanted in zip(found, rows, strict=True):
        assert row | {"seconds": 0} == wanted | {"seconds": 0}
    assert np.array_equal(second.policy.mixture, whole.policy.mixture)
    assert second.outer_step == whole.outer_step


def test_the_first_window_may_have_a_mixture_of_its_own(layout: Layout) -> None:
    probe = np.array([0.75, 0.125, 0.125])
    loop = new_loop(layout, first_window=probe)
    loop.before_step(0)
    np.testing.assert_array_equal(loop.policy.mixture, UNIFORM)
    (row, *_) = advance(loop, range(1, 5))
    assert row["sampling"] == pytest.approx((0.5 * probe + 0.5 / 3).tolist())
    assert loop.observer.calls[1] == ("end", *probe.tolist())


def test_it_is_finished_once_the_rule_has_settled(layout: Layout) -> None:
    loop = new_loop(layout, settles_at=1.0)
    advance(loop, range(14))
    assert not loop.finished  # Four updates are too few to say.
    longer = OuterSchedule(warmup=2, every=3, window=2, steps=100)
    loop = new_loop(layout, settles_at=1.0)
    loop.schedule = longer
    for step in range(100):
        advance(loop, range(step, step + 1))
        if loop.finished:
            break
    assert loop.outer_step == 16
    again = new_loop(layout, settles_at=1.0)
    again.load(pickle.loads(pickle.dumps(loop.state())))
    assert again.finished


def test_processes_that_have_lost_step_are_noticed(layout: Layout) -> None:
    loop = new_loop(layout)
    advance(loop, range(4))
    loop.outer_step += 1
    with pytest.raises(RuntimeError, match=r"is at outer step 3, but rank 0 announced 2"):
        advance(loop, range(5, 7))
