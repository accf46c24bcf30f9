"""Who is to blame for a hang: pure functions over what the processes last said of themselves."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

MAX_LISTED = 16


@dataclass(frozen=True)
class Place:
    """Where a process is, in its own words."""

    ticks: int
    """How often its watchdog has spoken."""
    beats: int
    """How often its training has moved."""
    step: int
    phase: str
    waits: bool
    """Whether it is inside the communication libraries."""
    stack: str
    """Of its main thread, the innermost call last."""


@dataclass(frozen=True)
class Verdict:
    ranks: list[int]
    """Empty where no rank stands out."""
    reason: str


def find_suspects(places: Sequence[Place | None], silent: Set[int], lockstep: bool) -> Verdict:
    """The stuck ranks.

    Args:
        places: by rank; None where nothing was ever heard.
        silent: ranks whose watchdog itself has gone quiet.
        lockstep: whether all processes do the same micro-batches at the same time.
    """
    if silent:
        return Verdict(sorted(silent), "the process gives no sign of life: stopped, killed or lost")
    known = {rank: place for rank, place in enumerate(places) if place is not None}
    working = [rank for rank, place in known.items() if not place.waits]
    if working and len(working) < len(known):
        return Verdict(working, "the others wait for it in a collective")
    progress = {rank: (place.step, place.beats if lockstep else 0) for rank, place in known.items()}
    behind = [rank for rank, done in progress.items() if done == min(progress.values())]
    if len(behind) < len(known):
        return Verdict(behind, "it is behind the others")
    return Verdict([], "no rank stands out; look at the network")


def describe_hang(event: dict[str, Any]) -> str:
    """The message for an event of kind `hung`."""
    ranks, places = event["ranks"], event["places"]
    if ranks:
        head = f"rank {', '.join(map(str, ranks[:MAX_LISTED]))} is stuck ({event['reason']})"
    else:
        head = event["reason"]
    lines = [f"the run hangs after step {event['step']}: {head}"]
    # The suspects first: a large run has too many ranks to list.
    order = [*ranks, *(rank for rank in range(len(places)) if rank not in ranks)]
    for rank in order[:MAX_LISTED]:
        place = places[rank]
        said = "never heard of" if place is None else f"step {place['step']}, {place['phase']}"
        lines.append(f"  rank {rank}: {said}{_doing(place)}")
    for rank in ranks[:MAX_LISTED]:
        if places[rank] is not None:
            lines.append(f"stack of rank {rank}, as it last said:\n{places[rank]['stack']}")
    lines.append("start again to go on from the last checkpoint")
    return "\n".join(lines)


def _doing(place: dict[str, Any] | None) -> str:
    if place is None or not place["stack"]:
        return ""
    frames = [line.strip() for line in place["stack"].split("\n") if line.startswith("  File")]
    return f", {'waits' if place['waits'] else 'works'} in {frames[-1]}"
