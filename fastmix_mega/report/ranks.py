"""How long each process worked and waited in a training step, on average over the run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fastmix_mega.report.read import LoggedStep, Run

ROWS = 16
"""Of a run with more processes, the slowest are shown."""


@dataclass(frozen=True)
class RankTimes:
    """Seconds a step; None where it is not known."""

    rank: int
    step: float
    data: float
    forward: float | None
    wait: float | None
    ratio: float | None
    """Reading and forward, to the median of all processes."""


@dataclass(frozen=True)
class RankTable:
    rows: list[RankTimes]
    """The slowest first."""
    count: int
    """Of all processes."""


def rank_table(run: Run) -> RankTable | None:
    """None where there is nothing to compare: one process, several seeds, or an older run."""
    lines = [line for line in run.steps if line.ranks is not None]
    if not lines:
        return None
    last = lines[-1].ranks
    assert last is not None
    count = len(last.step_seconds)
    # A run that went on with another number of processes has other ranks.
    lines = [line for line in lines if line.ranks and len(line.ranks.step_seconds) == count]
    if count < 2:
        return None
    steps, data, forward, wait = (
        _means(lines, name)
        for name in ("step_seconds", "data_seconds", "forward_seconds", "wait_seconds")
    )
    own = [(a or 0.0) + (b or 0.0) for a, b in zip(data, forward, strict=True)]
    median = statistics.median_low(own)
    rows = [
        RankTimes(
            rank,
            steps[rank] or 0.0,
            data[rank] or 0.0,
            forward[rank],
            wait[rank],
            own[rank] / median if median else None,
        )
        for rank in range(count)
    ]
    return RankTable(sorted(rows, key=lambda row: -own[row.rank])[:ROWS], count)


def _means(lines: Sequence[LoggedStep], name: str) -> list[float | None]:
    """By rank, over the lines that know it; lines stand for about as many steps each."""
    columns = zip(*(getattr(line.ranks, name) for line in lines), strict=True)
    known = [[value for value in column if value is not None] for column in columns]
    return [statistics.mean(values) if values else None for values in known]
