"""Whether a search can be relied on: a mixture that collapses, scores that are mostly noise.

Each logs a warning when it begins, not at every outer step of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastmix_mega.resumable import Resumable


class MixtureGuard(Resumable):
    """Watches the lines of history.jsonl. On rank 0 only.

    Args:
        min_effective: fewer effective sources are a collapsed mixture; 0 watches for none.
        max_doubtful: a larger share of the scored sources with a score below its own standard
            error logs a warning; 1 watches for none.
        names: of the sources.
    """

    resumes = ("_collapsed", "_doubtful")

    def __init__(self, min_effective: float, max_doubtful: float, names: Sequence[str]) -> None:
        self._min_effective = min_effective
        self._max_doubtful = max_doubtful
        self._names = list(names)
        self._collapsed = False
        self._doubtful = False

    def check(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Take in one line of history.jsonl; returns lines for events.jsonl."""
        events = []
        collapsed = is_collapsed(row["effective_sources"], self._min_effective, len(self._names))
        if collapsed and not self._collapsed:
            events.append(self._collapse(row))
        self._collapsed = collapsed
        noisy = noisy_sources(self._names, row["scores"], row["score_stderr"], row["counts"])
        scored = sum(count > 0 for count in row["counts"])
        doubtful = len(noisy) > self._max_doubtful * scored
        if doubtful and not self._doubtful:
            events.append(
                {
                    "step": row["step"],
                    "kind": "doubtful",
                    "outer_step": row["outer_step"],
                    "sources": noisy,
                    "scored": scored,
                }
            )
        self._doubtful = doubtful
        return events

    def _collapse(self, row: dict[str, Any]) -> dict[str, Any]:
        weight, name = max(zip(row["mixture"], self._names, strict=True))
        return {
            "step": row["step"],
            "kind": "collapsed",
            "outer_step": row["outer_step"],
            "effective_sources": row["effective_sources"],
            "source": name,
            "weight": weight,
        }


def is_collapsed(effective_sources: float, least: float, source_count: int) -> bool:
    """One source alone cannot collapse."""
    return source_count > 1 and effective_sources < least


def noisy_sources(
    names: Sequence[str],
    scores: Sequence[float],
    standard_errors: Sequence[float],
    counts: Sequence[float],
) -> list[str]:
    """The scored sources whose score is smaller than its own standard error."""
    given = zip(names, scores, standard_errors, counts, strict=True)
    return [name for name, score, error, count in given if count > 0 and error > abs(score)]


def describe_mixture_event(event: dict[str, Any]) -> str:
    where = f"step {event['step']} (outer step {event['outer_step']})"
    if event["kind"] == "collapsed":
        return (
            f"{where}: the mixture has collapsed to {event['effective_sources']:.2f} effective "
            f"sources, {event['weight']:.0%} is {event['source']}; look for a source that overlaps "
            "the target, or lower search.step"
        )
    return (
        f"{where}: the scores of {len(event['sources'])} of {event['scored']} sources are smaller "
        f"than their standard errors ({', '.join(event['sources'][:5])}); the mixture follows "
        "noise if that lasts: raise search.target_batch, search.every or search.decay"
    )
