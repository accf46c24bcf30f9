"""Loss spikes: a logged loss far above its running mean, in running standard deviations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastmix_mega.resumable import Resumable

LINES_BEFORE = 10
"""Lines that are only learned from; fewer give no useful deviation."""

WINDOW = 10
"""The mean and the variance forget exponentially, over about this many lines."""


class LossSpikes(Resumable):
    """Watches the loss of each line of metrics.jsonl. On rank 0 only.

    Args:
        limit: standard deviations above the mean that are a spike; 0 watches nothing.
        names: of the sources.
    """

    resumes = ("_count", "_mean", "_variance")

    def __init__(self, limit: float, names: Sequence[str]) -> None:
        self._limit = limit
        self._names = list(names)
        self._count = 0
        self._mean = 0.0
        self._variance = 0.0

    def check(
        self, step: int, loss: float, source_losses: Sequence[float | None]
    ) -> dict[str, Any] | None:
        """Take in one line; returns a line for events.jsonl if it is a spike.

        Args:
            step: training steps done.
            loss: under the mixture, since the line before.
            source_losses: [S] the sources' own; None where nothing was drawn.
        """
        if not self._limit:
            return None
        deviation = math.sqrt(self._variance)
        highest = self._mean + self._limit * deviation
        spiked = self._count >= LINES_BEFORE and deviation > 0 and loss > highest
        event = None
        if spiked:
            event = {
                "step": step,
                "kind": "spike",
                "loss": loss,
                "mean": self._mean,
                "z": (loss - self._mean) / deviation,
                "source_loss": dict(zip(self._names, source_losses, strict=True)),
            }
        # A spike counts as the limit: it must not hide the next one, and a lasting rise is learned.
        self._learn(highest if spiked else loss)
        return event

    def _learn(self, loss: float) -> None:
        self._count += 1
        share = 1 / min(self._count, WINDOW)
        change = loss - self._mean
        self._mean += share * change
        self._variance = (1 - share) * (self._variance + share * change**2)


def describe_spike(event: dict[str, Any]) -> str:
    known = {name: loss for name, loss in event["source_loss"].items() if loss is not None}
    worst = sorted(known, key=lambda name: -known[name])[:3]
    sources = ", ".join(f"{name} {known[name]:.3f}" for name in worst)
    return (
        f"step {event['step']}: the loss spiked to {event['loss']:.3f}, {event['z']:.1f} standard "
        f"deviations above its running mean of {event['mean']:.3f} (highest: {sources})"
    )
