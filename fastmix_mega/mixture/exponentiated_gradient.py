"""FastMix's rule with lower noise: exponentiated gradient on decayed mean scores.

Paper: FastMix, arXiv 2606.14971; docs/method.md has the equations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.advantage import Advantages, drift
from fastmix_mega.mixture.controller import MixtureEstimate
from fastmix_mega.mixture.simplex import (
    DecayedSums,
    ScoreEstimate,
    effective_count,
    exponentiated_gradient,
    geometric_mean,
    mixture_standard_error,
    most_epochs,
    softmax,
    worth_of_epochs,
)
from fastmix_mega.mixture.tied_sources import TiedSources
from fastmix_mega.mixture.trajectory import Trajectory
from fastmix_mega.resumable import Resumable


@dataclass(frozen=True)
class RuleSettings:
    """The constants of the rule; see `search` in docs/reference.md."""

    step: float
    decay: float
    prior_strength: float = 0.0
    settles_at: float = 0.0
    """The search may end when at most this share of the tokens still moves; 0 never ends it."""
    scale_decay: float = 0.9
    """Of the running mean of the scores' spread, which is the unit of a step."""


@dataclass(frozen=True)
class Repetition:
    """How scores fade as sources repeat."""

    epochs: FloatArray
    """[S] each source's epochs at the budget if it were the only source."""
    repetitions: float = 15.0
    """See `simplex.worth_of_epochs`."""


class ExponentiatedGradient(Resumable):
    """Moves the logarithms of the weights along the sources' decayed mean scores.

    The result is the geometric mean of the mixture over the last half of the outer steps. Its
    standard errors carry the scores' measured sampling noise through the updates; they do not
    hold what another seed of the model would change.

    Args:
        initial: [S] the mixture that the search begins with, and is pulled back to.
        settings: of the rule.
        project: to the nearest mixture within the constraints, after every update (mirror
            descent); None without any.
        tied: sources that keep their ratios; `initial` has them, and `project` keeps them.
        repetition: None where repetition plays no part.
    """

    resumes = (
        "outer_step",
        "_logits",
        "_stacked_sums",
        "_scale",
        "_log_mixtures",
        "_noise",
        "_present_noise",
        "_free_logits",
        "_free_log_mixtures",
        "_evidence",
    )

    def __init__(
        self,
        initial: FloatArray,
        settings: RuleSettings,
        project: Callable[[FloatArray], FloatArray] | None = None,
        tied: TiedSources | None = None,
        repetition: Repetition | None = None,
    ) -> None:
        self.initial = initial
        self.settings = settings
        self.project = project
        self.tied = tied
        self.repetition = repetition
        self.outer_step = 0
        count = len(initial)
        self._initial_logits = np.log(initial) - np.log(initial).mean()
        self._logits = self._free_logits = self._initial_logits
        self._sums = DecayedSums.zeros(count)
        self._scale = 0.0
        self._log_mixtures = Trajectory(count)
        self._free_log_mixtures = Trajectory(count)
        self._noise = Trajectory(count)
        self._present_noise: FloatArray = np.zeros(count)
        """[S] variance of the logits: what the pull to the first mixture has left of all noise."""
        self._evidence = Advantages()

    @property
    def mixture(self) -> FloatArray:
        # With a step of 0 the mixture stays the initial one to the last bit.
        return self.initial if self.settings.step == 0 else self._restored(softmax(self._logits))

    def update(self, sums: FloatArray) -> ScoreEstimate:
        self.outer_step += 1
        self._sums = self._sums.add(sums, self.settings.decay)
        estimate = self._sums.estimate()
        mixture = self.mixture
        self._evidence.add(mixture, self.initial, sums)

        # A source that was never seen moves with the average.
        seen = self._sums.weight > 0
        average = (mixture[seen] @ estimate.mean[seen]) / max(mixture[seen].sum(), 1e-300)
        scores = self._with_diminishing_returns(np.where(seen, estimate.mean, average))

        # The unit of a step is the scores' spread so far.
        spread = float(np.abs(scores - scores.mean()).max())
        self._scale = (
            self.settings.scale_decay * self._scale + (1 - self.settings.scale_decay) * spread
        )
        scale = self._scale / (1 - self.settings.scale_decay**self.outer_step)

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
        self._keep_noise(per_window * ((self.settings.step / scale) ** 2 if scale > 0 else 0.0))
        return estimate

    def _with_diminishing_returns(self, scores: FloatArray) -> FloatArray:
        """Positive scores fade as a source repeats, and are 0 at the largest sensible epochs.

        The last part fades in from half of these epochs on, so that steps do not carry a source
        far beyond them.
        """
        if self.repetition is None:
            return scores
        epochs = self.repetition.epochs * self.mixture
        worth = worth_of_epochs(epochs, self.repetition.repetitions)
        worth *= np.clip(2 - 2 * epochs / most_epochs(self.repetition.epochs), 0, 1)
        return np.where(scores > 0, scores * worth, scores)

    def _restored(self, mixture: FloatArray) -> FloatArray:
        return mixture if self.tied is None else self.tied.restore(mixture)

    def _moved(self, logits: FloatArray, scores: FloatArray, scale: float) -> FloatArray:
        pulled = logits + self.settings.prior_strength * (self._initial_logits - logits)
        return exponentiated_gradient(pulled, scores, scale, self.settings.step)

    @property
    def standard_errors(self) -> FloatArray:
        """[S] of the present mixture."""
        return self._errors(self.mixture, self._present_noise)

    def _keep_noise(self, variance: FloatArray) -> None:
        self._noise.append(variance)
        left = 1 - self.settings.prior_strength
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
        weights = geometric_mean(trajectory[first:]) if self.settings.step > 0 else self.initial
        weights = self._restored(weights)
        free = None
        if self.project is not None:
            # The mean of mixtures within the limits may leave them by a little.
            weights = self.project(weights)
            free = self._restored(geometric_mean(self._free_log_mixtures.rows[first:]))
        shares = _shares_in_mean(len(trajectory), first)
        variance = (shares[:, None] ** 2 * self._noise.rows).sum(axis=0)
        errors = self._errors(weights, variance)
        return MixtureEstimate(weights, errors, free, self._evidence.probability)

    @property
    def settled(self) -> bool:
        return (
            self.settings.settles_at > 0
            and drift(self._log_mixtures.rows) <= self.settings.settles_at
        )

    def row(self) -> dict[str, Any]:
        return {"mixture_stderr": self.standard_errors.tolist()}

    @property
    def _stacked_sums(self) -> FloatArray:
        return self._sums.stacked

    @_stacked_sums.setter
    def _stacked_sums(self, stacked: FloatArray) -> None:
        self._sums = DecayedSums(*stacked)


def _shares_in_mean(count: int, first: int) -> FloatArray:
    """[K] how much of every window's move is in the mean of the points from `first` on."""
    averaged = count - first
    # The noise of window k is in all averaged points from k on.
    return np.minimum(np.arange(count, 0, -1), averaged) / averaged
