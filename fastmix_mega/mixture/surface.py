"""A posterior over the loss of any mixture on every target, from the evidence of one run.

The surface of one target over mixtures lambda [S], around the run's own mixture u:

    L(lambda) = a + beta (N(lambda) - N(u)) - sum_i d_i g_i(lambda)
    g_i(lambda) = (u_i + c) log((lambda_i + c) / (u_i + c))

N is the n-gram loss model, and d_i the discrepancy: what source i is worth beyond what its n-grams
say, or short of it, in nats per unit of share at u. g bends, so that more of one source is worth
less and less. The prior of every d_i is a Student-t with few degrees of freedom: n-grams are nearly
right about most sources, and one source may fool them entirely.

Evidence is linear in the unknowns (a, beta, d):
    a level: the loss of the run itself;
    a value: the loss of another finished run at its mixture;
    a slope: what the run's late scores say of a source, relative to the average of all, with an
    error of two parts: the scores' own noise, and a bias that does not fall with more sequences.

The posterior is Gaussian for given scales of the d_i. The scales follow from the EM iteration of
the Student-t (Lange, Little and Taylor, 1989), so that a source whose evidence disagrees with its
n-grams is set free, and the others are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.descent import least_loss_mixture
from fastmix_mega.mixture.ngram_loss import NgramLossModel

MOST_ITERATIONS = 400
"""Of the search for the mixture with the least loss."""
LEAST_GAIN = 1e-7
"""Nats per token that an iteration still has to gain."""
EM_ITERATIONS = 50


@dataclass(frozen=True)
class SurfaceConstants:
    """Fitted to retrained models (research/LOG.md), for all families and targets together."""

    beta: float = 1.0
    """Prior mean of what a nat of the n-gram loss model is worth."""
    beta_spread: float = 0.3
    slope_bias: float = 1.0
    """SD of a slope's lasting error, as a share of the root mean square of the slopes: the bias of
    a short horizon does not fall with more sequences."""
    scale: float = 0.3
    """Of the prior of d, in nats per unit of share."""
    freedom: float = 2.0
    """Degrees of freedom of that prior."""
    bend: float = 0.02
    """c, a share."""
    level_noise: float = 0.02
    """SD of a training's loss over seeds, in nats."""
    level_error: float = 0.08
    """SD of the run's own level as that of a fresh training, in nats: a search trains on
    micro-batches of one source each, and looks at few target sequences. Differences between
    mixtures are free of it."""
    misfit: float = 0.16
    """SD of the surface's own error, in nats per unit of total variation from u."""


@dataclass(frozen=True)
class Slopes:
    """What late scores say of one target: [S] nats per unit of share, higher is better."""

    mean: FloatArray
    standard_error: FloatArray
    seen: FloatArray
    """[S] observations; sources with 0 say nothing."""


@dataclass(frozen=True)
class Values:
    """Losses [N] of one target in finished runs at mixtures [N, S], and their extra noise [N]."""

    mixtures: FloatArray
    losses: FloatArray


@dataclass(frozen=True)
class TargetPosterior:
    """Of (a, beta, d)."""

    mean: FloatArray
    """[2 + S]"""
    covariance: FloatArray
    """[2 + S, 2 + S]"""


@dataclass(frozen=True)
class Prediction:
    """[N, K] losses of a fresh training, in nats, with standard deviations."""

    mean: FloatArray
    deviation: FloatArray


class LossSurface:
    """The posterior of all targets.

    Args:
        reference: [S] u, the mixture that the run was trained on; none of it 0.
        ngrams: the n-gram loss model of the same targets; None where it says nothing.
        targets: one posterior per target.
        constants: as they were fitted with.
    """

    def __init__(
        self,
        reference: FloatArray,
        ngrams: NgramLossModel | None,
        targets: Sequence[TargetPosterior],
        constants: SurfaceConstants,
    ) -> None:
        self.reference = reference
        self.ngrams = ngrams
        self.targets = list(targets)
        self.constants = constants

    def predict(self, mixtures: FloatArray) -> Prediction:
        """Losses at mixtures [N, S]."""
        rows = np.stack(
            [
                design(mixture, self.reference, self.ngrams, len(self.targets), self.constants.bend)
                for mixture in mixtures
            ]
        )  # [N, K, P]
        means = np.stack([target.mean for target in self.targets])  # [K, P]
        covariances = np.stack([target.covariance for target in self.targets])
        moved = 0.5 * np.abs(mixtures - self.reference).sum(axis=1)
        own = (self.constants.misfit * moved) ** 2 + self.constants.level_noise**2
        variance = np.einsum("nkp,kpq,nkq->nk", rows, covariances, rows) + own[:, None]
        return Prediction(np.einsum("nkp,kp->nk", rows, means), np.sqrt(variance))

    def objective(self, mixture: FloatArray, weights: FloatArray) -> tuple[float, FloatArray]:
        """The mean of the targets' expected losses by `weights` [K], and its [S] gradient."""
        shares = weights / weights.sum()
        means = np.stack([target.mean for target in self.targets])
        return self._loss_of(means, mixture, shares)

    def _loss_of(
        self, parameters: FloatArray, mixture: FloatArray, shares: FloatArray
    ) -> tuple[float, FloatArray]:
        """As `objective`, for parameters [K, P] and shares [K] that sum to 1."""
        discrepancy = shares @ parameters[:, 2:]
        bend = self.constants.bend
        scale = self.reference + bend
        value = float(shares @ parameters[:, 0])
        value -= float(discrepancy @ (scale * np.log((mixture + bend) / scale)))
        gradient = -discrepancy * scale / (mixture + bend)
        if self.ngrams is not None:
            slopes = shares * parameters[:, 1]
            losses, derivatives = self.ngrams.losses(mixture)
            at_reference, _ = self.ngrams.losses(self.reference)
            value += float(slopes @ (losses - at_reference))
            gradient = gradient + slopes @ derivatives
        return value, gradient

    def best(
        self,
        weights: FloatArray,
        project: Callable[[FloatArray], FloatArray] | None = None,
        parameters: FloatArray | None = None,
        start: FloatArray | None = None,
    ) -> FloatArray:
        """[S] the mixture of the least expected loss, by exponentiated gradient descent.

        Args:
            weights: [K] of the targets; they need not sum to 1.
            project: to the nearest allowed mixture; None allows all.
            parameters: [K, P] other than the posterior means.
            start: [S] where the descent starts; by default at u.
        """
        shares = weights / weights.sum()
        if parameters is None:
            parameters = np.stack([target.mean for target in self.targets])

        def allowed(mixture: FloatArray) -> FloatArray:
            return mixture if project is None else project(mixture)

        return least_loss_mixture(
            lambda mixture: self._loss_of(parameters, mixture, shares),
            allowed(self.reference if start is None else start),
            LEAST_GAIN,
            MOST_ITERATIONS,
            allowed,
        )

    def drawn(self, count: int, seed: int) -> FloatArray:
        """[count, K, P] draws of the unknowns from the posterior."""
        random = np.random.default_rng(seed)
        draws = [
            random.multivariate_normal(target.mean, target.covariance, count, method="cholesky")
            for target in self.targets
        ]
        return np.stack(draws, axis=1)

    def differences(self, mixture: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
        """[K] by how much a training on `mixture` ends above one on `other` with the same seed.

        Returns:
            Means and standard deviations, in nats.
        """
        count, bend = len(self.targets), self.constants.bend
        first, second = (
            design(each, self.reference, self.ngrams, count, bend) for each in (mixture, other)
        )
        means = np.empty(count)
        variances = np.empty(count)
        for number, (row, target) in enumerate(zip(first - second, self.targets, strict=True)):
            means[number] = row @ target.mean
            variances[number] = row @ target.covariance @ row
        apart = 0.5 * float(np.abs(mixture - other).sum())
        return means, np.sqrt(variances + (self.constants.misfit * apart) ** 2)

    def probability_better(
        self, mixture: FloatArray, other: FloatArray, weights: FloatArray
    ) -> float:
        """That the targets' mean loss by `weights` is lower on `mixture` than on `other`."""
        from scipy.stats import norm

        shares = weights / weights.sum()
        means, deviations = self.differences(mixture, other)
        # Targets may be wrong together: their errors are added up as if they were one.
        deviation = float(shares @ deviations)
        return 0.5 if deviation == 0 else float(norm.cdf(-float(shares @ means) / deviation))


def design(
    mixture: FloatArray,
    reference: FloatArray,
    ngrams: NgramLossModel | None,
    target_count: int,
    bend: float,
) -> FloatArray:
    """[K, 2 + S] what the loss at a mixture weighs (a, beta, d) with."""
    scale = reference + bend
    bent = -scale * np.log((mixture + bend) / scale)
    rows = np.zeros((target_count, 2 + len(mixture)))
    rows[:, 0] = 1.0
    rows[:, 2:] = bent
    if ngrams is not None:
        rows[:, 1] = ngrams.losses(mixture)[0] - ngrams.losses(reference)[0]
    return rows


def fit(
    reference: FloatArray,
    ngrams: NgramLossModel | None,
    evidence: Sequence[tuple[float, Slopes | None, Values | None]],
    constants: SurfaceConstants | None = None,
) -> LossSurface:
    """The posterior of every target.

    Args:
        reference: [S] u.
        ngrams: of the same targets in the same order.
        evidence: per target the run's own loss, its slopes, and other runs.
        constants: of the prior and of the errors.
    """
    constants = constants or SurfaceConstants()
    targets = [
        _fit_target(reference, ngrams, number, each, constants)
        for number, each in enumerate(evidence)
    ]
    return LossSurface(reference, ngrams, targets, constants)


def _fit_target(
    reference: FloatArray,
    ngrams: NgramLossModel | None,
    number: int,
    evidence: tuple[float, Slopes | None, Values | None],
    constants: SurfaceConstants,
) -> TargetPosterior:
    level, slopes, values = evidence
    count = len(reference)
    rows: list[FloatArray] = [np.eye(1, 2 + count)[0]]
    seen, noise = [level], [constants.level_error]
    if values is not None:
        for mixture, loss in zip(values.mixtures, values.losses, strict=True):
            target_count = 1 if ngrams is None else len(ngrams.counts.weights)
            every = design(mixture, reference, ngrams, target_count, constants.bend)
            rows.append(every[number if ngrams is not None else 0])
            moved = 0.5 * float(np.abs(mixture - reference).sum())
            seen.append(float(loss))
            noise.append(float(np.hypot(constants.level_noise, constants.misfit * moved)))
    if slopes is not None:
        of_ngrams = np.zeros(count) if ngrams is None else -ngrams.losses(reference)[1][number]
        more = _slope_rows(slopes, of_ngrams, constants)
        rows += more[0]
        seen += more[1]
        noise += more[2]
    weighted = np.array(rows) / np.array(noise)[:, None]
    answers = np.array(seen) / np.array(noise)
    prior = np.concatenate(([level, constants.beta], np.zeros(count)))
    return _student_posterior(weighted, answers, prior, constants)


def _slope_rows(
    slopes: Slopes, of_ngrams: FloatArray, constants: SurfaceConstants
) -> tuple[list[FloatArray], list[float], list[float]]:
    """Observations of (a, beta, d): each source's slope less the mean over the sources seen."""
    seen = slopes.seen > 0
    average = seen / max(int(seen.sum()), 1)
    size = float(np.sqrt(np.mean((slopes.mean[seen] - average @ slopes.mean) ** 2)))
    rows: list[FloatArray] = []
    values: list[float] = []
    noise: list[float] = []
    for source in np.flatnonzero(seen):
        centred = -average.copy()
        centred[source] += 1
        rows.append(np.append([0.0, centred @ of_ngrams], centred))
        values.append(float(centred @ slopes.mean))
        error = np.hypot(slopes.standard_error[source], constants.slope_bias * size)
        noise.append(max(float(error), 1e-12))
    return rows, values, noise


def _student_posterior(
    rows: FloatArray, answers: FloatArray, prior: FloatArray, constants: SurfaceConstants
) -> TargetPosterior:
    """EM for the scales of d; the answer is Gaussian given them.

    Args:
        rows: [N, P] divided by their noise.
        answers: [N] divided by it.
        prior: [P] means.
        constants: of the prior.
    """
    # From the wide side: from the narrow one a source that lies by a lot is never set free.
    variances = np.full(len(prior) - 2, 100 * constants.scale**2 + 1)
    mean: FloatArray = prior
    covariance: FloatArray = np.eye(len(prior))
    for _ in range(EM_ITERATIONS):
        level_and_beta = np.array([1e-2, constants.beta_spread**-2])
        precision = np.diag(np.concatenate((level_and_beta, 1 / variances)))
        covariance = np.asarray(np.linalg.inv(rows.T @ rows + precision), np.float64)
        mean = np.asarray(covariance @ (rows.T @ answers + precision @ prior), np.float64)
        squares = mean[2:] ** 2 + np.diag(covariance)[2:]
        # Large discrepancies get large scales of their own.
        spread = (constants.freedom * constants.scale**2 + squares) / (constants.freedom + 1)
        if np.allclose(spread, variances, rtol=1e-6):
            break
        variances = np.asarray(spread)
    return TargetPosterior(mean, covariance)
