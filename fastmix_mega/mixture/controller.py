"""What every rule that moves a mixture has in common: from window sums to the next mixture.

A controller is plain float64 arithmetic on vectors of S numbers; it knows nothing of processes.
It lives on rank 0. Its state holds everything that the next update depends on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.simplex import DecayedSums, ScoreEstimate
from fastmix_mega.resumable import Resumable


@dataclass(frozen=True)
class MixtureEstimate:
    """The search's answer, [S] each. Weights sum to 1."""

    weights: FloatArray
    standard_errors: FloatArray
    free: FloatArray | None = None
    """Where the same scores would have led without constraints; None if there are none."""
    better: float | None = None
    """Probability that the mixture is better than the initial one, as far as the scores can tell;
    None if the method does not tell, or nothing moved."""


class Controller(Protocol):
    """The rule of a method."""

    outer_step: int
    """Updates made so far."""

    @property
    def mixture(self) -> FloatArray:
        """[S] at present."""

    @property
    def settled(self) -> bool:
        """Whether the search may end early."""

    def update(self, sums: FloatArray) -> ScoreEstimate:
        """One outer step from a window's [4, S] sums (see `SourceSums`)."""

    def row(self) -> dict[str, Any]:
        """What the rule adds to a line of history.jsonl."""

    def result(self) -> MixtureEstimate:
        """The answer so far."""

    def state(self) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any]) -> None: ...


class AverageController(Resumable):
    """A rule whose answer is the mean of the mixtures after every update.

    Subclasses say in `_moved` where the mixture goes.

    Args:
        initial: [S] positive, sum 1.
    """

    resumes: tuple[str, ...] = ("outer_step", "mixture", "_total", "_memory")
    settled = False

    def __init__(self, initial: FloatArray) -> None:
        self.initial = initial
        self.outer_step = 0
        self.mixture = initial
        self._total, self._memory = np.zeros((2, len(initial)))
        """[S] the sum of all mixtures, and what the rule remembers of each source."""

    def update(self, sums: FloatArray) -> ScoreEstimate:
        estimate = window_estimate(sums)
        self.mixture = self._moved(sums, estimate.mean)
        self.outer_step += 1
        self._total = self._total + self.mixture
        return estimate

    def _moved(self, sums: FloatArray, means: FloatArray) -> FloatArray:
        """The next mixture from a window's [4, S] sums and their [S] means."""
        raise NotImplementedError

    def row(self) -> dict[str, Any]:
        return {}

    def result(self) -> MixtureEstimate:
        return self._mean_of(self.outer_step)

    def _mean_of(self, count: int) -> MixtureEstimate:
        mean = self._total / count if count else self.initial
        return MixtureEstimate(mean / mean.sum(), np.zeros_like(self.initial))


def window_estimate(sums: FloatArray) -> ScoreEstimate:
    """Of one window's [4, S] sums alone."""
    return DecayedSums.zeros(sums.shape[1]).add(sums, 0.0).estimate()
