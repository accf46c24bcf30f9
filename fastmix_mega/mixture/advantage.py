"""Is the mixture better than the one the search began with, and has it settled? From its own run.

Every window's scores are noise that the mixture of that moment has not seen: it follows from
earlier windows alone. So x_k = (mixture_k - initial) . scores_k estimates without bias, up to the
learning rate, by how much more the target's loss falls in window k with this mixture than with the
initial one, and without any advantage its sum is a martingale. Divided by the root of the sum of
squares it is then nearly standard normal (self-normalised sums: de la Pena, Lai and Shao, 2009),
whatever the noise is made of: sequences, targets, the model's state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.simplex import geometric_mean
from fastmix_mega.resumable import Resumable

CONFIDENT = 0.95
"""Probability from which a mixture counts as better than the initial one."""
LEAST_OUTER_STEPS = 16
"""Before that many a mixture cannot have settled."""
FEW_OUTER_STEPS = 10
"""Fewer than that many say too little to rely on."""


def few_outer_steps(count: int, when: str = "was") -> str:
    """What to tell of a search with so few updates, in the past or (`will be`) before it."""
    times = "once" if count == 1 else f"{count} times"
    return (
        f"The mixture {when} updated only {times}; search for more steps, or set search.every "
        "lower, before you rely on it."
    )


@dataclass
class Advantages(Resumable):
    """Advantages of the mixtures of a search over its initial one, window by window."""

    resumes = ("advantages",)

    advantages: list[float] = field(default_factory=list)

    def add(self, mixture: FloatArray, initial: FloatArray, sums: FloatArray) -> None:
        """Take in one window.

        Args:
            mixture: [S] before this window's update.
            initial: [S].
            sums: [4, S] of this window's scores (see `SourceSums`).
        """
        total, _, count = sums[:3]
        moved = mixture - initial
        seen = count > 0
        # Without a score of its own a source counts as the average one does: it says nothing.
        scores = np.where(seen, total / np.maximum(count, 1), 0.0)
        average = scores[seen].mean() if seen.any() else 0.0
        self.advantages.append(float(moved @ np.where(seen, scores - average, 0.0)))

    @property
    def sigmas(self) -> float | None:
        """Sum over root of the sum of squares; None if nothing has moved."""
        values = np.array(self.advantages)
        size = math.sqrt(float(values @ values)) if len(values) else 0.0
        return float(values.sum()) / size if size > 0 else None

    @property
    def probability(self) -> float | None:
        """That the mixture is better, as far as the scores can tell: 1 - p of a one-sided test."""
        sigmas = self.sigmas
        return None if sigmas is None else 0.5 * math.erfc(-sigmas / math.sqrt(2))


def drift(log_mixtures: FloatArray) -> float:
    """The share of the tokens that moved between the last quarter of the outer steps and the one
    before (total variation between the two geometric means); infinite before `LEAST_OUTER_STEPS`.

    Args:
        log_mixtures: [K, S] after every outer step.
    """
    count = len(log_mixtures)
    if count < LEAST_OUTER_STEPS:
        return math.inf
    quarter = count // 4
    late = geometric_mean(log_mixtures[-quarter:])
    early = geometric_mean(log_mixtures[-2 * quarter : -quarter])
    return float(np.abs(late - early).sum() / 2)
