"""What `train` and `search` differ in: the mixture's law and weights, and when it is updated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.sections import SearchSection
from fastmix_mega.mixture.simplex import loss_weights, sampling_law


@dataclass(frozen=True)
class MixturePolicy:
    """From which law a step's sequences are drawn, and with which weights their losses count.

    `train` keeps one policy with exploration 0: it samples the mixture, and every weight is 1.
    """

    mixture: FloatArray
    """[S] sums to 1."""
    exploration: float = 0.0
    explored: FloatArray | None = None
    """[S] the law of exploration; None is uniform."""

    @property
    def law(self) -> FloatArray:
        """[S] q."""
        return sampling_law(self.mixture, self.exploration, self.explored)

    def moved_to(self, mixture: FloatArray) -> MixturePolicy:
        """The same at another mixture."""
        return replace(self, mixture=mixture)

    @property
    def weights(self) -> FloatArray:
        """[S] mixture / q."""
        return loss_weights(self.mixture, self.law)


@dataclass(frozen=True)
class OuterSchedule:
    """When the outer steps of a search happen, in training steps from 0."""

    warmup: int
    every: int
    window: int
    """Steps whose sequences are scored after each look at the target."""
    steps: int

    @classmethod
    def of(
        cls, search: SearchSection, method: str, steps: int, from_pairs: bool = False
    ) -> OuterSchedule:
        warmup = search.warmup_steps(steps if from_pairs else None)
        # The authors' code scores the one micro-batch that follows the target's gradient.
        window = 1 if method == "reference" else search.every
        return cls(warmup, search.every, window, steps)

    def measures_target(self, step: int) -> bool:
        """Whether v is set before this step."""
        since = step - self.warmup
        return since >= 0 and since % self.every == 0 and step + self.window <= self.steps

    def updates_after(self, step: int) -> bool:
        """Whether this step completes a window."""
        start = step + 1 - self.window
        return start >= 0 and self.measures_target(start)

    @property
    def outer_steps(self) -> int:
        return max(0, (self.steps - self.window - self.warmup) // self.every + 1)


@dataclass(frozen=True)
class RoundSchedule:
    """Outer steps of unequal lengths, one after the other, in rounds; as `OuterSchedule`."""

    warmup: int
    lengths: tuple[int, ...]
    """Steps of each window of a round."""
    steps: int

    @property
    def window(self) -> int:
        """Steps until the first update."""
        return self.lengths[0]

    def measures_target(self, step: int) -> bool:
        return step in self._edges[:-1]

    def updates_after(self, step: int) -> bool:
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
