"""The rank-0 controllers: from score sums to the next mixture, and at the end to the result.

A controller is plain float64 arithmetic on vectors of S numbers; it knows nothing of processes.
`state()` and `load()` round-trip everything that the next update depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.sections import SearchSection
from fastmix_mega.mixture.evidence import Evidence, drift
from fastmix_mega.mixture.simplex import (
    DecayedSums,
    ScoreEstimate,
    effective_count,
    exponentiated_gradient,
    geometric_mean,
    mixture_standard_error,
    most_readings,
    softmax,
    worth_of_epochs,
)
from fastmix_mega.mixture.tied_sources import TiedSources


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
    outer_step: int
    """Updates made so far."""

    @property
    def mixture(self) -> FloatArray: ...

    def update(self, sums: FloatArray) -> ScoreEstimate:
        """One outer step from a window's [4, S] sums (see `SourceSums`)."""

    @property
    def standard_errors(self) -> FloatArray:
        """[S] of the present mixture."""

    def result(self) -> MixtureEstimate: ...

    def state(self) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any]) -> None: ...


class Trajectory:
    """A growing [K, S] array: one row per outer step, without an object for each."""

    def __init__(self, width: int) -> None:
        self._rows: FloatArray = np.empty((16, width))
        self._count = 0

    def append(self, row: FloatArray) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate((self._rows, np.empty_like(self._rows)))
        self._rows[self._count] = row
        self._count += 1

    @property
    def rows(self) -> FloatArray:
        """[K, S], a view."""
        return self._rows[: self._count]

    @rows.setter
    def rows(self, rows: FloatArray) -> None:
        self._count = len(rows)
        if self._count:
            self._rows = np.array(rows)


STEP = 0.2
"""Of the logarithms of the weights, from a first mixture that knows nothing of the targets."""
STEP_FROM_PAIRS = 0.02
"""From token pairs, which know most of what the scores know: with more, the noise and the short
sight of the scores cost more than what they add (docs/quality.md)."""

QUICK_START_ZEROS = 4
"""Scores of 0 that the first outer steps are averaged with, so that one window's noise moves a
mixture by a fifth of the way only."""


@dataclass
class FastMixController:
    """Exponentiated gradient on decayed mean scores ("The rule" of the shared notes).

    The result is the geometric mean of the mixture over the last half of the outer steps. Its
    standard errors carry the scores' measured sampling noise through the updates; they do not
    hold what another seed of the model would change.
    """

    initial: FloatArray
    step: float
    decay: float
    prior_strength: float = 0.0
    project: Callable[[FloatArray], FloatArray] | None = None
    """To the nearest mixture within the constraints, after every update (mirror descent)."""
    tied: TiedSources | None = None
    """Sources that keep their ratios; `initial` has them, and `project` keeps them."""
    quick_start: bool = False
    """Larger steps and pulls at first, in the same ratio; see `_rate_at`."""
    epochs: FloatArray | None = None
    """[S] how often each source would be read at the budget if it were the only one; None where
    repetition plays no part."""
    repetitions: float = 15.0
    """See `rule.worth_of_epochs`."""
    scale_decay: float = 0.9
    outer_step: int = 0
    _home: FloatArray = field(init=False)
    _logits: FloatArray = field(init=False)
    _sums: DecayedSums = field(init=False)
    _scale: float = 0.0
    _log_mixtures: Trajectory = field(init=False)
    _noise: Trajectory = field(init=False)
    _present_noise: FloatArray = field(init=False)
    """[S] variance of the logits: what the pull to the first mixture has left of all noise."""
    _free_logits: FloatArray = field(init=False)
    _free_log_mixtures: Trajectory = field(init=False)
    _evidence: Evidence = field(default_factory=Evidence)

    def __post_init__(self) -> None:
        self._home = np.log(self.initial) - np.log(self.initial).mean()
        self._logits = self._free_logits = self._home
        self._sums = DecayedSums.zeros(len(self.initial))
        self._log_mixtures = Trajectory(len(self.initial))
        self._noise = Trajectory(len(self.initial))
        self._present_noise = np.zeros_like(self.initial)
        self._free_log_mixtures = Trajectory(len(self.initial))

    @property
    def mixture(self) -> FloatArray:
        # With a step of 0 the mixture stays the initial one to the last bit.
        return self.initial if self.step == 0 else self._restored(softmax(self._logits))

    def update(self, sums: FloatArray) -> ScoreEstimate:
        self.outer_step += 1
        self._sums = self._sums.add(sums, self.decay)
        estimate = self._sums.estimate()
        seen = self._sums.weight > 0
        mixture = self.mixture
        self._evidence.add(mixture, self.initial, sums)
        # A source that was never seen moves with the average.
        average = (mixture[seen] @ estimate.mean[seen]) / max(mixture[seen].sum(), 1e-300)
        scores = self._worn(np.where(seen, estimate.mean, average))
        spread = float(np.abs(scores - scores.mean()).max())
        self._scale = self.scale_decay * self._scale + (1 - self.scale_decay) * spread
        scale = self._scale / (1 - self.scale_decay**self.outer_step)
        if self.tied is not None:
            # The scale stays that of all sources, so that a step is as long as without ties.
            scores = self.tied.average(scores)
        if scale > 0:
            self._logits = self._moved(self._logits, scores, scale)
            if self.project is not None:
                self._free_logits = self._moved(self._free_logits, scores, scale)
                self._logits = np.log(self.project(softmax(self._logits)))
        self._free_log_mixtures.append(np.log(softmax(self._free_logits)))
        self._log_mixtures.append(np.log(self.mixture))
        # Every window's noise reaches the logits once in full, spread by the decay.
        per_window = self._sums.observation_variance() / np.maximum(effective_count(sums), 1)
        # A single source, or equal scores, move nothing.
        step = self.step * self._rate
        self._keep_noise(per_window * ((step / scale) ** 2 if scale > 0 else 0.0))
        return estimate

    def _worn(self, scores: FloatArray) -> FloatArray:
        """A source that would be read again and again teaches less than its scores say, and nothing
        where it is read as often as reasonable; that fades in from half as often on, so that
        steps do not carry it far beyond."""
        if self.epochs is None:
            return scores
        readings = self.epochs * self.mixture
        worth = worth_of_epochs(readings, self.repetitions)
        worth *= np.clip(2 - 2 * readings / most_readings(self.epochs), 0, 1)
        return np.where(scores > 0, scores * worth, scores)

    def _restored(self, mixture: FloatArray) -> FloatArray:
        return mixture if self.tied is None else self.tied.restore(mixture)

    def _moved(self, logits: FloatArray, scores: FloatArray, scale: float) -> FloatArray:
        pulled = logits + self.prior_strength * self._rate * (self._home - logits)
        return exponentiated_gradient(pulled, scores, scale, self.step * self._rate)

    @property
    def _rate(self) -> float:
        return self._rate_at(self.outer_step)

    def _rate_at(self, outer_step: int) -> float:
        """By what an outer step's move and pull are multiplied.

        With a pull of 1 / (k + n) at outer step k the logits are step / prior_strength times the
        plain mean of all normalised scores, with n scores of 0 added (dual averaging; Nesterov,
        2009), instead of a running mean that starts at 0 and needs 1 / prior_strength outer steps
        to forget it. From there on the pull is `prior_strength`.
        """
        if not self.quick_start or self.prior_strength == 0:
            return 1.0
        pull = max(self.prior_strength, 1 / (outer_step + QUICK_START_ZEROS))
        return pull / self.prior_strength

    @property
    def standard_errors(self) -> FloatArray:
        """[S] of the present mixture."""
        return self._errors(self.mixture, self._present_noise)

    def _keep_noise(self, variance: FloatArray) -> None:
        self._noise.append(variance)
        left = 1 - self.prior_strength * self._rate
        self._present_noise = left**2 * self._present_noise + variance

    def _errors(self, weights: FloatArray, logit_variance: FloatArray) -> FloatArray:
        if self.tied is not None:
            return self.tied.standard_errors(weights, logit_variance)
        return mixture_standard_error(weights, logit_variance)

    def result(self) -> MixtureEstimate:
        trajectory = self._log_mixtures.rows  # [K, S]
        if not len(trajectory):
            return MixtureEstimate(self.mixture, np.zeros_like(self.initial))
        first = len(trajectory) // 2
        weights = geometric_mean(trajectory[first:]) if self.step > 0 else self.initial
        weights = self._restored(weights)
        free = None
        if self.project is not None:
            # The mean of mixtures within the limits may leave them by a little.
            weights = self.project(weights)
            free = self._restored(geometric_mean(self._free_log_mixtures.rows[first:]))
        reach = self._reach(len(trajectory), first)
        variance = (reach[:, None] ** 2 * self._noise.rows).sum(axis=0)
        errors = self._errors(weights, variance)
        return MixtureEstimate(weights, errors, free, self._evidence.probability)

    def _reach(self, count: int, first: int) -> FloatArray:
        """[K] how much of every window's move is in the mean of the points from `first` on."""
        averaged = count - first
        # The noise of window k is in all averaged points from k on.
        reach = np.minimum(np.arange(count, 0, -1), averaged) / averaged
        if self.quick_start:
            # The pull of later windows shrinks it: early moves are large, and mostly gone.
            later = 0.0
            for number in range(count - 1, -1, -1):
                later = (number >= first) / averaged + later
                reach[number] = later
                later *= 1 - self.prior_strength * self._rate_at(number + 1)
        return reach

    @property
    def drift(self) -> float:
        """The share of the tokens that still moves; see `evidence.drift`."""
        return drift(self._log_mixtures.rows)

    def state(self) -> dict[str, Any]:
        return {
            "outer_step": self.outer_step,
            "logits": self._logits,
            "sums": np.stack(
                (
                    self._sums.total,
                    self._sums.square,
                    self._sums.weight,
                    self._sums.weight_squared,
                )
            ),
            "scale": self._scale,
            "log_mixtures": self._log_mixtures.rows,
            "noise": self._noise.rows,
            "present_noise": self._present_noise,
            "free_logits": self._free_logits,
            "free_log_mixtures": self._free_log_mixtures.rows,
            "advantages": np.array(self._evidence.advantages),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.outer_step = state["outer_step"]
        self._logits = state["logits"]
        self._sums = DecayedSums(*state["sums"])
        self._scale = state["scale"]
        self._log_mixtures.rows = state["log_mixtures"]
        self._noise.rows = state["noise"]
        self._present_noise = state["present_noise"]
        self._free_logits = state["free_logits"]
        self._free_log_mixtures.rows = state["free_log_mixtures"]
        self._evidence = Evidence(state["advantages"].tolist())


@dataclass
class ReferenceController:
    """The authors' public code, for comparison: Adam on z from one micro-batch's raw scores.

    Sources absent from the micro-batch score 0, and the last mixture is the result.
    """

    initial: FloatArray
    rate: float
    beta1: float = 0.9
    beta2: float = 0.95
    outer_step: int = 0
    _logits: FloatArray = field(init=False)
    _first: FloatArray = field(init=False)
    _second: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self._logits = np.log(self.initial) - np.log(self.initial).mean()
        self._first, self._second = np.zeros((2, len(self.initial)))

    @property
    def mixture(self) -> FloatArray:
        return softmax(self._logits)

    def update(self, sums: FloatArray) -> ScoreEstimate:
        self.outer_step += 1
        estimate = DecayedSums.zeros(len(self.initial)).add(sums, 0.0).estimate()
        mixture = self.mixture
        gradient = -mixture * (estimate.mean - mixture @ estimate.mean)
        self._first = self.beta1 * self._first + (1 - self.beta1) * gradient
        self._second = self.beta2 * self._second + (1 - self.beta2) * gradient**2
        first = self._first / (1 - self.beta1**self.outer_step)
        second = self._second / (1 - self.beta2**self.outer_step)
        self._logits = self._logits - self.rate * first / (np.sqrt(second) + 1e-8)
        return estimate

    @property
    def standard_errors(self) -> FloatArray:
        """None are known."""
        return np.zeros_like(self.initial)

    def result(self) -> MixtureEstimate:
        return MixtureEstimate(self.mixture, np.zeros_like(self.initial))

    def state(self) -> dict[str, Any]:
        return {
            "outer_step": self.outer_step,
            "logits": self._logits,
            "first": self._first,
            "second": self._second,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.outer_step = state["outer_step"]
        self._logits = state["logits"]
        self._first, self._second = state["first"], state["second"]


def build_controller(
    method: str,
    search: SearchSection,
    initial: FloatArray,
    project: Callable[[FloatArray], FloatArray] | None = None,
    tied: TiedSources | None = None,
    step: float = STEP,
    epochs: FloatArray | None = None,
) -> Controller:
    """The controller of a method that compares gradients; see `FastMixController`."""
    if method == "reference":
        assert tied is None
        assert project is None
        return ReferenceController(initial, search.reference_rate)
    assert method == "fastmix"
    return FastMixController(
        initial,
        step,
        search.decay,
        search.prior_strength,
        project,
        tied,
        search.quick_start,
        epochs,
        search.repetitions,
    )
