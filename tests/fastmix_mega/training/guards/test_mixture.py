from __future__ import annotations

from typing import Any

from fastmix_mega.training.guards.mixture import MixtureGuard, describe_mixture_event

NAMES = ["a", "b", "c"]


def row(step: int, effective: float = 3.0, **changes: Any) -> dict[str, Any]:
    plain = {
        "step": step,
        "outer_step": step,
        "mixture": [0.9, 0.1, 0.0],
        "scores": [1.0, -1.0, 0.1],
        "score_stderr": [0.5, 0.5, 0.5],
        "counts": [3, 3, 3],
        "effective_sources": effective,
    }
    return plain | changes


def test_told_when_it_begins_and_again_after_it_ended() -> None:
    guard = MixtureGuard(1.5, 0.5, NAMES)
    told = [len(guard.check(row(step, found))) for step, found in enumerate([2, 1.4, 1.3, 2, 1.1])]
    assert told == [0, 1, 0, 0, 1]


def test_scores_that_are_noise() -> None:
    guard = MixtureGuard(0, 0.5, NAMES)
    assert guard.check(row(1)) == []
    (event,) = guard.check(row(2, score_stderr=[0.5, 2.0, 2.0]))
    assert event["sources"] == ["b", "c"]
    assert "2 of 3 sources" in describe_mixture_event(event)
    # A source that was never scored says nothing.
    assert MixtureGuard(0, 0.5, NAMES).check(row(3, score_stderr=[0, 2, 0], counts=[1, 1, 0])) == []


def test_a_single_source_cannot_collapse() -> None:
    single = row(1, 1.0, mixture=[1.0], scores=[1.0], score_stderr=[0.1], counts=[5])
    assert MixtureGuard(1.5, 0.5, ["a"]).check(single) == []


def test_state_round_trips() -> None:
    first, second = MixtureGuard(1.5, 0.5, NAMES), MixtureGuard(1.5, 0.5, NAMES)
    assert len(first.check(row(1, 1.1))) == 1
    second.load(first.state())
    assert second.check(row(2, 1.1)) == []
