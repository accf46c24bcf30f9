"""Does a source's score fall as its share rises? First against last quarter of the search."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fastmix_mega.report.read import OuterStep, Run
from fastmix_mega.report.sources import Mixture, SourceView, mixture_average

ROWS = 10
FEWEST = 16
"""Outer steps below which quarters are too short to compare."""
RISE = 1.1
"""A share that is larger by this factor has risen."""
INDEPENDENT = 0.3 / 1.7
"""Of neighbouring scores, the share that is news: each keeps 0.7 of the one before."""


@dataclass(frozen=True)
class Saturation:
    source: SourceView
    share: tuple[float, float]
    """Mean over the first and the last quarter of the outer steps."""
    pull: tuple[float, float]
    """The same of the score's distance to the mixture's average, in units of the largest
    distance among all sources: what the update rule sees."""
    reading: str


def saturation(run: Run, mixture: Mixture) -> list[Saturation]:
    """The heaviest sources; empty for runs without enough outer steps."""
    if len(run.history) < FEWEST or len(run.names) < 2:
        return []
    quarter = len(run.history) // 4
    first, last = run.history[:quarter], run.history[-quarter:]
    found = []
    for source in mixture.ranked[:ROWS]:
        shares = [[row.mixture[source.index] for row in rows] for rows in (first, last)]
        pulls = [[_pull(row, source.index) for row in rows] for rows in (first, last)]
        found.append(
            Saturation(
                source,
                (statistics.mean(shares[0]), statistics.mean(shares[1])),
                (statistics.mean(pulls[0]), statistics.mean(pulls[1])),
                _reading(shares, pulls),
            )
        )
    return found


def _pull(row: OuterStep, index: int) -> float:
    center = statistics.mean(row.scores)
    scale = max(abs(score - center) for score in row.scores)
    return (row.scores[index] - mixture_average(row)) / scale if scale > 0 else 0.0


def _reading(shares: Sequence[Sequence[float]], pulls: Sequence[Sequence[float]]) -> str:
    before, after = (statistics.mean(part) for part in shares)
    if after < RISE * before:
        return "its share did not rise"
    noise = sum(statistics.variance(part) / max(1.0, INDEPENDENT * len(part)) for part in pulls)
    fall = statistics.mean(pulls[0]) - statistics.mean(pulls[1])
    if fall > 2 * noise**0.5:
        return "saturating: its pull fell as its share rose"
    return "no saturation seen: its pull did not clearly fall"
