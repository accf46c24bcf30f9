from __future__ import annotations

import math

import pytest

from fastmix_mega.training.clock import StepTimes
from fastmix_mega.training.guards.stragglers import Stragglers, describe_straggler

HOSTS = ("node1", "node1", "node2", "node2")


def line(*own: float) -> list[StepTimes]:
    return [StepTimes(step=9.0, data=0.1, forward=each - 0.1, wait=0.0) for each in own]


def test_a_rank_that_stays_slow_is_named_once_until_it_recovers() -> None:
    stragglers = Stragglers([0] * 4, HOSTS)
    slow, even = line(1.0, 1.1, 1.0, 1.4), line(1.0, 1.1, 1.0, 1.2)
    found = [stragglers.check(number, slow, 20.0 * number) for number in range(8)]
    assert [len(events) for events in found] == [0, 0, 0, 0, 1, 0, 0, 0]
    (event,) = found[4]
    assert (event["rank"], event["host"], event["step"]) == (3, "node2", 4)
    assert "rank 3 on node2 has been slow for a while" in describe_straggler(event)
    assert "1.4 s a step (0.1 reading, 1.3 forward) where the median is 1 s" in describe_straggler(
        event
    )
    assert stragglers.check(8, even, 160.0) == []
    again = [stragglers.check(9 + number, slow, 180.0 + 20 * number) for number in range(5)]
    assert [len(events) for events in again] == [0, 0, 0, 0, 1]


def test_short_and_alternating_slowness_is_no_news() -> None:
    stragglers = Stragglers([0] * 4, HOSTS)
    for number in range(20):
        # Within a minute, however many lines; and never five in a row.
        assert stragglers.check(number, line(1, 1, 1, 2), 2.0 * number) == []
    for number in range(20):
        slow = line(2, 1, 1, 1) if number % 5 else line(1, 1, 1, 1)
        assert stragglers.check(number, slow, 100.0 + 60 * number) == []


@pytest.mark.parametrize(
    ("stages", "own", "named"),
    [
        ([0, 0], (1.0, 1.5), {1}),
        ([0, 0, 1, 1], (1.0, 1.0, 2.0, 2.0), set()),
        ([0, 0, 1, 1], (1.0, 1.0, 2.0, 3.0), {3}),
        ([0, 1], (1.0, 9.0), set()),
        ([0, 0], (math.nan, 1.0), set()),
    ],
)
def test_ranks_are_compared_with_those_of_their_stage(
    stages: list[int], own: tuple[float, ...], named: set[int]
) -> None:
    stragglers = Stragglers(stages, HOSTS)
    found = [stragglers.check(number, line(*own), 60.0 * number) for number in range(6)]
    assert {event["rank"] for events in found for event in events} == named
