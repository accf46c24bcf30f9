"""When the outer steps of a search happen, in training steps from 0."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import Protocol


class Schedule(Protocol):
    """Windows of training steps that are observed; each ends with an update of the mixture."""

    @property
    def warmup(self) -> int:
        """Steps before the first window."""

    @property
    def window(self) -> int:
        """Steps from the start of the first window to its update."""

    @property
    def outer_steps(self) -> int:
        """Updates in the whole run."""

    def starts_window(self, step: int) -> bool:
        """Whether a window begins before this step."""

    def ends_window(self, step: int) -> bool:
        """Whether this step completes a window."""


@dataclass(frozen=True)
class OuterSchedule:
    """A window every so many steps, after a warm-up."""

    warmup: int
    every: int
    window: int
    """Steps whose sequences are observed after each look at the target; at most `every`."""
    steps: int

    def starts_window(self, step: int) -> bool:
        since = step - self.warmup
        return since >= 0 and since % self.every == 0 and step + self.window <= self.steps

    def ends_window(self, step: int) -> bool:
        start = step + 1 - self.window
        return start >= 0 and self.starts_window(start)

    @property
    def outer_steps(self) -> int:
        return max(0, (self.steps - self.window - self.warmup) // self.every + 1)


@dataclass(frozen=True)
class RoundSchedule:
    """Windows of unequal lengths, one after the other, in rounds."""

    warmup: int
    lengths: tuple[int, ...]
    """Steps of each window of a round."""
    steps: int

    @property
    def window(self) -> int:
        return self.lengths[0]

    def starts_window(self, step: int) -> bool:
        return step in self._edges[:-1]

    def ends_window(self, step: int) -> bool:
        return step + 1 in self._edges[1:]

    @property
    def outer_steps(self) -> int:
        return len(self._edges) - 1

    @cached_property
    def _edges(self) -> list[int]:
        """Where windows begin, and the end of the last whole one."""
        edges = [self.warmup]
        for length in cycle(self.lengths):
            if edges[-1] + length > self.steps:
                return edges
            edges.append(edges[-1] + length)
        raise AssertionError("a round has windows")
