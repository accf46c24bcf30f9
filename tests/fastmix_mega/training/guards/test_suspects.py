from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from fastmix_mega.training.guards.suspects import Place, describe_hang, find_suspects

WAITING = Place(
    5, 100, 9, "training", True, '  File "distributed_c10d.py", line 1, in all_reduce\n'
)
WORKING = replace(WAITING, waits=False, stack='  File "mine.py", line 3, in slow\n    slow()\n')


@pytest.mark.parametrize(
    ("places", "silent", "lockstep", "ranks"),
    [
        ([WAITING, WORKING, WAITING], set(), True, [1]),
        ([WAITING, WORKING, None], {2}, True, [2]),
        ([WAITING, replace(WAITING, beats=99), WAITING], set(), True, [1]),
        ([WAITING, replace(WAITING, beats=99), WAITING], set(), False, []),
        ([WAITING, replace(WAITING, step=8), WAITING], set(), False, [1]),
        ([WORKING, WORKING], set(), True, []),
        ([WORKING, replace(WORKING, beats=1)], set(), True, [1]),
    ],
)
def test_who_is_to_blame(
    places: list[Place | None], silent: set[int], lockstep: bool, ranks: list[int]
) -> None:
    assert find_suspects(places, silent, lockstep).ranks == ranks


def test_the_suspect_stands_first_with_its_stack() -> None:
    places = [*([asdict(WAITING)] * 30), asdict(WORKING), None]
    event = {"step": 9, "ranks": [30], "reason": "why", "places": places}
    lines = describe_hang(event).split("\n")
    assert lines[0] == "the run hangs after step 9: rank 30 is stuck (why)"
    assert lines[1] == '  rank 30: step 9, training, works in File "mine.py", line 3, in slow'
    assert lines[2].startswith("  rank 0: step 9, training, waits in")
    assert "stack of rank 30, as it last said:" in lines
    assert len(lines) < 25
