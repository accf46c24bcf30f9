"""When windows begin and end, step by step."""

from __future__ import annotations

import pytest

from fastmix_mega.mixture.outer_schedule import OuterSchedule, RoundSchedule


def test_a_window_every_so_many_steps() -> None:
    schedule = OuterSchedule(warmup=6, every=4, window=4, steps=20)
    assert [step for step in range(20) if schedule.starts_window(step)] == [6, 10, 14]
    assert [step for step in range(20) if schedule.ends_window(step)] == [9, 13, 17]
    assert schedule.outer_steps == 3


def test_a_window_may_be_shorter_than_the_time_between() -> None:
    schedule = OuterSchedule(warmup=6, every=4, window=1, steps=20)
    assert [step for step in range(20) if schedule.ends_window(step)] == [6, 10, 14, 18]


@pytest.mark.parametrize("window", [4, 1])
@pytest.mark.parametrize("steps", [1, 9, 10, 13, 14, 10**11 + 10])
def test_outer_steps_are_counted_at_once(window: int, steps: int) -> None:
    schedule = OuterSchedule(warmup=6, every=4, window=window, steps=steps)
    if steps < 100:
        assert schedule.outer_steps == sum(map(schedule.ends_window, range(steps)))
    else:
        assert schedule.outer_steps == 25 * 10**9 + 1


def test_rounds_have_windows_of_their_own_lengths() -> None:
    schedule = RoundSchedule(3, (2, 2, 5), 22)
    assert [step for step in range(22) if schedule.starts_window(step)] == [3, 5, 7, 12, 14, 16]
    assert [step for step in range(22) if schedule.ends_window(step)] == [4, 6, 11, 13, 15, 20]
    assert schedule.outer_steps == 6
    assert RoundSchedule(3, (9,), 8).outer_steps == 0
