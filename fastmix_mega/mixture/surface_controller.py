"""Collects what one run's windows say of every target, and answers from the loss surface.

The run itself trains on one mixture from start to end: its evidence is of that mixture, and no
answer along the way narrows what is learned later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.controller import MixtureEstimate
from fastmix_mega.mixture.ngram_loss import NgramLossModel
from fastmix_mega.mixture.simplex import (
    DecayedSums,
    ScoreEstimate,
    effective_sources,
    entropy,
    floored,
)
from fastmix_mega.mixture.surface import LossSurface, SurfaceConstants
from fastmix_mega.mixture.surface_fit import Evidence, Recorded, Slopes, fit, with_rows
from fastmix_mega.mixture.surface_values import Values
from fastmix_mega.mixture.trajectory import Trajectory
from fastmix_mega.resumable import Resumable

DRAWS = 24
"""Of the posterior, from which standard errors come."""
LEAST_SCALE = 0.01
"""Of the promised falls, where the windows saw next to none."""
ANSWERS_ALONG = 12
"""Of a run, for its history: an answer costs seconds where there are many n-grams."""
FEWEST_WINDOWS = 4
"""Of a target, from which the scatter between windows is its scores' noise."""


@dataclass(frozen=True)
class SurfaceSettings:
    """What a search knows beside its scores."""

    target_weights: FloatArray
    """[K] of the objective."""
    ngrams: NgramLossModel | None
    """None where n-grams say nothing, as of conversations."""
    window_rate: Callable[[int], float]
    """Number of an outer step, from 0 -> the sum of its steps' learning rates."""
    levels: Callable[[], FloatArray]
    """The targets' latest losses [K]."""
    windows: int
    """Of the whole run."""
    project: Callable[[FloatArray], FloatArray] | None = None
    """To the nearest mixture within the limits."""
    most_epochs: Callable[[FloatArray], FloatArray] | None = None
    """To the nearest mixture that repeats no source beyond reason."""
    decay: float = 0.7
    """Of the scores that are shown along the run; the answer weighs all windows alike."""
    constants: SurfaceConstants = field(default_factory=SurfaceConstants)
    values: Values | None = None
    """Losses of finished runs."""
    seed: int = 0
    train_tokens: float | None = None
    """Of the run; None for the budget of the n-grams."""


class SurfaceController(Resumable):
    """See the module's docstring. Window n is about target n modulo K.

    Args:
        reference: [S] the mixture that the run trains on.
        settings: see there.
    """

    resumes = ("outer_step", "_windows", "_losses", "_recent_sums", "_answer")
    settled = False

    def __init__(self, reference: FloatArray, settings: SurfaceSettings) -> None:
        self.mixture = reference
        self.outer_step = 0
        self._settings = settings
        self._windows = Trajectory(4 * len(reference))
        """[windows, 4 S] sums of every window."""
        self._losses = Trajectory(1)
        """[windows, 1] the loss of each window's target at its start."""
        self._values: dict[tuple[int, ...], Values] = {}
        """Losses of finished runs with their rows, by the n-grams' context lengths."""
        self._answer: FloatArray | None = None
        """[S] the last one that the history shows."""
        count = len(settings.target_weights)
        self._recent = DecayedSums.zeros(count, len(reference))

    @property
    def _recent_sums(self) -> FloatArray:
        return self._recent.stacked

    @_recent_sums.setter
    def _recent_sums(self, stacked: FloatArray) -> None:
        self._recent = DecayedSums(*stacked)

    def update(self, sums: FloatArray) -> ScoreEstimate:
        """Keep a window; returns the objective's scores as far as they are known."""
        weights = self._settings.target_weights
        target = self.outer_step % len(weights)
        placed = np.zeros((4, len(weights), sums.shape[1]))
        placed[:, target] = sums
        faded = np.ones((len(weights), 1))
        faded[target] = self._settings.decay
        before = self._recent
        self._recent = DecayedSums(
            total=faded * before.total + placed[0],
            square=faded * before.square + placed[1],
            weight=faded * before.weight + placed[2],
            weight_squared=faded**2 * before.weight_squared + placed[3],
        )
        self._windows.append(sums.ravel())
        self._losses.append(self._settings.levels()[target : target + 1])
        self.outer_step += 1

        # Targets that no window was about yet leave their part to the others.
        every = self._recent.estimate()
        known = weights * (self._recent.weight.sum(axis=1) > 0)
        shares = known / known.sum()
        deviation = np.sqrt((shares**2) @ every.standard_error**2)
        return ScoreEstimate(shares @ every.mean, deviation)

    def scale(self) -> tuple[float, float]:
        """What a promised nat is worth: the fall of the targets' losses that the windows saw, over
        the fall that their scores promised for the run's own mixture. And its standard error.

        Steps are no infinitesimal ones, and their gradients are noisy: to first order a loss falls
        by several times what it does. The ratio is much the same for all sources and targets. In a
        short run the few noisy looks at the targets may show no fall at all; then it is not known.
        """
        rates = self._rates()
        done = np.cumsum(rates) - rates / 2
        fall, promised, squares, freedom, spread = 0.0, 0.0, 0.0, 0, 0.0
        for target in range(len(self._settings.target_weights)):
            own = self._own(target)
            if own.sum() < 2:
                continue
            # The trend over all windows: a single look at the targets is noisy.
            line = np.polyfit(done[own], self._losses.rows[own, 0], 1)
            fall -= float(line[0]) * rates.sum()
            promised += float(self.mixture @ self._raw_slopes(target).mean)
            squares += float(np.sum((self._losses.rows[own, 0] - np.polyval(line, done[own])) ** 2))
            freedom += int(own.sum()) - 2
            spread += rates.sum() ** 2 / float(np.sum((done[own] - done[own].mean()) ** 2))
        if promised <= 0:
            return LEAST_SCALE, 1.0
        value = min(1.0, max(LEAST_SCALE, fall / promised))
        if freedom == 0:
            return value, value
        # A fall that no scale explains is off by more than its noise.
        error = math.hypot(math.sqrt(squares / freedom * spread), value * promised - fall)
        return value, min(1.0, error / promised)

    def _rates(self) -> FloatArray:
        """[windows] sums of learning rates."""
        return np.array([self._settings.window_rate(each) for each in range(self.outer_step)])

    def _levels(self) -> FloatArray:
        """[K] the targets' losses at the end of the last window, by their trend over the last half
        of their looks; 0 of a target that no window was about."""
        rates = self._rates()
        done = np.cumsum(rates) - rates
        levels = np.zeros(len(self._settings.target_weights))
        for target in range(len(levels)):
            own = np.flatnonzero(self._own(target))
            late = own[len(own) // 2 :]
            losses = self._losses.rows[late, 0]
            if len(late) > 2:
                levels[target] = np.polyval(np.polyfit(done[late], losses, 1), rates.sum())
            elif len(late):
                levels[target] = losses[-1]
        return levels

    def _own(self, target: int) -> NDArray[np.bool_]:
        """[windows] which are about a target."""
        return np.arange(self.outer_step) % len(self._settings.target_weights) == target

    def slopes(self, target: int) -> Slopes:
        """[S] what all windows of a target say, in nats per unit of share over the scored steps."""
        found, (scale, error) = self._raw_slopes(target), self.scale()
        seen = found.seen > 0
        apart = np.abs(found.mean - found.mean[seen].mean()) if seen.any() else 0 * found.mean
        # Of a product of two numbers, of which neither is certain.
        noise = np.hypot(
            scale * found.standard_error, error * np.hypot(apart, found.standard_error)
        )
        return Slopes(scale * found.mean, noise, found.seen)

    def _raw_slopes(self, target: int) -> Slopes:
        """To first order."""
        rows = self._windows.rows.reshape(self.outer_step, 4, -1)
        rates, own = self._rates(), self._own(target)
        total, square, count = (rows[own, place] for place in range(3))
        weight = count * rates[own, None]  # [windows, S]
        whole = np.maximum(weight.sum(axis=0), 1e-300)
        means = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        mean = (weight * means).sum(axis=0) / whole
        if own.sum() >= FEWEST_WINDOWS:
            variance = (weight**2 * (means - mean) ** 2).sum(axis=0)
        else:
            each = np.divide(square, count, out=np.zeros_like(total), where=count > 0) - means**2
            noise = np.divide(each, count, out=np.zeros_like(total), where=count > 0)
            variance = (weight**2 * np.maximum(noise, 0)).sum(axis=0)
        length = float(rates.sum())
        return Slopes(length * mean, length * np.sqrt(variance) / whole, count.sum(axis=0))

    def evidence(self) -> list[Evidence]:
        """What the run says so far, one per target."""
        # A target that no window was about has its n-grams alone.
        return [
            Evidence(float(level), self.slopes(target) if self.outer_step > target else None)
            for target, level in enumerate(self._levels())
        ]

    def recorded(self) -> Recorded:
        """All that is known so far."""
        ngrams = self._ngrams()
        return Recorded(
            reference=self.mixture,
            ngrams=ngrams,
            evidence=self.evidence(),
            values=self._with_rows(ngrams),
            constants=self._settings.constants,
        )

    def _ngrams(self) -> NgramLossModel | None:
        """Of the strength that the run's model has by now."""
        ngrams, tokens = self._settings.ngrams, self._settings.train_tokens
        if ngrams is None:
            return None
        return ngrams.as_strong_as(self._levels(), self.mixture, tokens or ngrams.budget)

    def _with_rows(self, ngrams: NgramLossModel | None) -> Values | None:
        """The finished runs, whose rows take a while."""
        settings = self._settings
        if settings.values is None:
            return None
        lengths = () if ngrams is None else ngrams.lengths
        if lengths not in self._values:
            self._values[lengths] = with_rows(
                settings.values, self.mixture, ngrams, settings.constants
            )
        return self._values[lengths]

    def surface(self) -> LossSurface:
        """The posterior from all evidence so far."""
        return self.recorded().with_runs(None)

    def answers_alone(self) -> dict[str, FloatArray]:
        """[S] what each kind of evidence would answer by itself, within limits and reason."""
        settings = self._settings
        ngrams, constants = self._ngrams(), settings.constants
        scores = fit(self.mixture, None, self.evidence(), None, constants)
        alone = {"scores": self.answer(scores)}
        if ngrams is not None:
            nothing = [Evidence(0.0) for _ in settings.target_weights]
            for kind, model in (("ngrams", ngrams), ("bigrams", ngrams.with_contexts(1))):
                alone[kind] = self.answer(fit(self.mixture, model, nothing, None, constants))
        if settings.values is not None:
            nothing = [Evidence(level) for level in self._levels().tolist()]
            found = fit(self.mixture, ngrams, nothing, self._with_rows(ngrams), constants)
            alone["runs"] = self.answer(found)
        return alone

    def row(self) -> dict[str, Any]:
        """The answer so far stands as the mixture of history.jsonl; `sampling` is the run's."""
        every = -(-self._settings.windows // ANSWERS_ALONG)
        if self.outer_step == self._settings.windows:
            self._answer = self._best_answer(self.surface())
        elif self._answer is None or self.outer_step % every == 0:
            self._answer = self.answer(self.surface(), start=self._answer)
        found = self._answer
        return {
            "mixture": found.tolist(),
            "entropy": entropy(found),
            "effective_sources": effective_sources(found),
            "mixture_stderr": [0.0] * len(found),
        }

    def answer(
        self,
        found: LossSurface,
        parameters: FloatArray | None = None,
        start: FloatArray | None = None,
    ) -> FloatArray:
        """[S] the best mixture within limits and reason.

        Args:
            found: the posterior.
            parameters: [K, P] other than its means.
            start: [S] a mixture near the answer, if one is known.
        """
        best = found.best(self._settings.target_weights, self._allowed, parameters, start)
        return self._allowed(floored(best))

    def _best_answer(self, found: LossSurface) -> FloatArray:
        """The better of the answers from the run's own mixture and from the last answer: a surface
        may have several hollows, where n-grams promise more of a source than scores confirm."""
        starts = [None] if self._answer is None else [None, self._answer]
        answers = [self.answer(found, start=start) for start in starts]
        weights = self._settings.target_weights
        return min(answers, key=lambda answer: found.objective(answer, weights)[0])

    def _allowed(self, mixture: FloatArray) -> FloatArray:
        for project in (self._settings.most_epochs, self._settings.project):
            mixture = mixture if project is None else project(mixture)
        return mixture

    def result(self) -> MixtureEstimate:
        """The answer, with the spread of the answers to draws of the posterior as its errors."""
        settings, found = self._settings, self.surface()
        weights = self._best_answer(found)
        draws = [self.answer(found, each, weights) for each in found.drawn(DRAWS, settings.seed)]
        errors = np.sqrt(np.mean((np.array(draws) - weights) ** 2, axis=0))
        better = found.probability_better(weights, self.mixture, settings.target_weights)
        free = None
        if settings.project is not None:
            free = found.best(settings.target_weights, settings.most_epochs)
        return MixtureEstimate(weights, errors, free, better)
