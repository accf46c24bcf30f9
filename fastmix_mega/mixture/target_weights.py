"""Several targets: their weights in the objective, and which source helps which of them.

Pure arithmetic on K targets and S sources, on rank 0; the engine measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.simplex import DecayedSums, ScoreEstimate, softmax
from fastmix_mega.resumable import Resumable


@dataclass
class TargetWeights(Resumable):
    """[K] weights of the targets' losses.

    With `step` 0 they stay the given ones. Otherwise they follow exponentiated-gradient ascent on
    the losses' excess over their references, w_k <- w_k exp(step (L_k - r_k)), normalised, so that
    the mixture is searched for the target that is worst off (Sagawa et al., 2020, arXiv 1911.08731,
    algorithm 1, with excess losses as in DoReMi, arXiv 2305.10429).
    """

    resumes = ("_log", "reference")

    given: FloatArray
    """Where they start; any positive numbers."""
    step: float = 0.0
    """Per nat of excess loss, at every outer step."""
    reference: FloatArray | None = None
    """[K] nats per token."""
    _log: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self._log = np.log(self.given / self.given.sum())

    @property
    def current(self) -> FloatArray:
        return self.given if self.step == 0 else softmax(self._log)

    def update(self, losses: FloatArray) -> None:
        """An outer step's losses [K]; does nothing without a step."""
        if self.step == 0:
            return
        assert self.reference is not None
        excess = losses - self.reference
        moved = self._log + self.step * (excess - softmax(self._log) @ excess)
        self._log = moved - moved.max()


@dataclass(frozen=True)
class TargetResult:
    """What a search learned about each of its K targets; matrices are [K, S]."""

    shares: FloatArray
    """[K] mean weight in the objective over the last half of the outer steps; sums to 1."""
    scores: ScoreEstimate | None
    """Mean over the same time of every source's score for every target; None if not measured."""
    gains: FloatArray | None
    """By how much each target's loss fell per unit of each source's share, to first order."""

    def entries(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """For mixture.json, one per target; `names` are the sources'."""
        found: list[dict[str, Any]] = [{"share": float(share)} for share in self.shares]
        if self.scores is None or self.gains is None:
            return found
        for number, entry in enumerate(found):
            for key, matrix in (
                ("scores", self.scores.mean),
                ("score_stderr", self.scores.standard_error),
                ("gains", self.gains),
            ):
                entry[key] = dict(zip(names, matrix[number].tolist(), strict=True))
        return found


class TargetScores(Resumable):
    """Every source's score for every target by itself, over the outer steps of a search.

    Args:
        target_count: K.
        source_count: S.
        decay: what remains of the sums after an outer step.
        outer_steps: of the whole search; the result is over their last half.
    """

    resumes = ("_steps", "_stacked_sums", "_late", "_late_shares", "_gains")

    def __init__(self, target_count: int, source_count: int, decay: float, outer_steps: int):
        shape = (target_count, source_count)
        self._decay = decay
        self._first = outer_steps // 2
        self._steps = 0
        self._sums = DecayedSums.zeros(*shape)
        self._late: FloatArray | None = None
        self._late_shares = np.zeros(target_count)
        self._gains = np.zeros(shape)

    def update(
        self, sums: FloatArray | None, weights: FloatArray, rate: float
    ) -> ScoreEstimate | None:
        """One outer step.

        Args:
            sums: [rows of `SourceSums`, K, S] of the window; None if not measured.
            weights: [K] of the targets in this window, of any sum.
            rate: sum of the window's learning rates.

        Returns:
            The scores' estimates, [K, S] each; None if not measured.
        """
        late = self._steps >= self._first
        self._steps += 1
        if late:
            self._late_shares += weights / weights.sum()
        if sums is None:
            return None
        self._sums = self._sums.add(sums, self._decay)
        estimate = self._sums.estimate()
        self._gains += rate * estimate.mean
        if late:
            self._late = sums.copy() if self._late is None else self._late + sums
        return estimate

    def result(self) -> TargetResult | None:
        """None before the last half has begun."""
        if self._late_shares.sum() == 0:
            return None
        shares = self._late_shares / self._late_shares.sum()
        if self._late is None:
            return TargetResult(shares, None, None)
        late = DecayedSums.zeros(*self._gains.shape).add(self._late, 0.0)
        return TargetResult(shares, late.estimate(), self._gains)

    @property
    def _stacked_sums(self) -> FloatArray:
        return self._sums.stacked

    @_stacked_sums.setter
    def _stacked_sums(self, stacked: FloatArray) -> None:
        self._sums = DecayedSums(*stacked)


def pool_targets(files: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The targets of several seeds' mixture files as one: means over the seeds.

    Standard errors become those of the spread between the seeds. What not every seed has is left
    out.
    """
    pooled = []
    for entries in zip(*files, strict=True):
        entry = {key: value for key, value in entries[0].items() if key not in MEASURED}
        if all("share" in each for each in entries):
            entry["share"] = float(np.mean([each["share"] for each in entries]))
        for key in ("scores", "gains"):
            if not all(key in each for each in entries):
                continue
            values = np.array([list(each[key].values()) for each in entries])  # [seeds, S]
            names = list(entries[0][key])
            entry[key] = dict(zip(names, values.mean(axis=0).tolist(), strict=True))
            if key == "scores":
                spread = values.std(axis=0, ddof=1) / np.sqrt(len(values))
                entry["score_stderr"] = dict(zip(names, spread.tolist(), strict=True))
        pooled.append(entry)
    return pooled


MEASURED = ("share", "scores", "score_stderr", "gains")
"""Of a target's entry in mixture.json: what a search found, beside what it was given."""
