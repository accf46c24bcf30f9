"""Which processes are slower than the others, and for how long already.

All processes leave a step together, so that the whole step tells nothing: compared is what each
does by itself, reading data and the forward pass, among those that hold the same part of the model.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fastmix_mega.training.clock import StepTimes

RATIO = 1.3
"""To the median: a rank is slow above it."""
LINES = 5
"""Log lines in a row, at least, before a warning."""
SECONDS = 60.0
"""And at least so long."""


class Stragglers:
    """Looks at every log line.

    Args:
        stages: by rank, which part of the model it holds.
        hosts: by rank, the machine.
    """

    def __init__(self, stages: Sequence[int], hosts: Sequence[str]) -> None:
        self._hosts = hosts
        alike: dict[int, list[int]] = defaultdict(list)
        for rank, stage in enumerate(stages):
            alike[stage].append(rank)
        self._alike = [ranks for ranks in alike.values() if len(ranks) > 1]
        self._slow: dict[int, tuple[int, float]] = {}
        """By slow rank, lines in a row, and the seconds at the first of them."""
        self._told: set[int] = set()

    def check(self, step: int, times: Sequence[StepTimes], now: float) -> list[dict[str, Any]]:
        """Take in one log line; returns lines for events.jsonl.

        Args:
            step: training steps done.
            times: by rank.
            now: seconds.
        """
        found = []
        for ranks in self._alike:
            own = {rank: times[rank].data + times[rank].forward for rank in ranks}
            # Of two, the faster one.
            median = statistics.median_low(own.values())
            for rank, seconds in own.items():
                if math.isnan(median) or not seconds > RATIO * median:
                    self._slow.pop(rank, None)
                    self._told.discard(rank)
                    continue
                lines, since = self._slow.get(rank, (0, now))
                self._slow[rank] = (lines + 1, since)
                long = lines + 1 >= LINES and now - since >= SECONDS
                if long and rank not in self._told:
                    self._told.add(rank)
                    found.append(self._event(step, rank, times[rank], median))
        return found

    def _event(self, step: int, rank: int, times: StepTimes, median: float) -> dict[str, Any]:
        return {
            "step": step,
            "kind": "straggler",
            "rank": rank,
            "host": self._hosts[rank],
            "data_seconds": times.data,
            "forward_seconds": times.forward,
            "median_seconds": median,
        }


def describe_straggler(event: dict[str, Any]) -> str:
    """The message for an event of kind `straggler`."""
    own = event["data_seconds"] + event["forward_seconds"]
    return (
        f"step {event['step']}: rank {event['rank']} on {event['host']} has been slow for a while, "
        f"and the others wait for it: {own:.3g} s a step ({event['data_seconds']:.3g} reading, "
        f"{event['forward_seconds']:.3g} forward) where the median is "
        f"{event['median_seconds']:.3g} s"
    )
