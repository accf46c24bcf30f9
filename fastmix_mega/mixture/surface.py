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
    a value: the loss of another finished run, or of a short branch of a trained model, at its
        mixture (`surface_values.py`);
    a slope: what the run's late scores say of a source, relative to the average of all, with an
    error of two parts: the scores' own noise, and a bias that does not fall with more sequences.

`surface_fit.py` makes the posterior from evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.descent import least_loss_mixture
from fastmix_mega.mixture.misfit import Misfit
from fastmix_mega.mixture.ngram_loss import NgramLossModel
from fastmix_mega.mixture.surface_values import KnownRuns

SIGMAS = 1.645
"""Half of a 90% interval, in standard deviations."""
MOST_ITERATIONS = 400
"""Of the search for the mixture with the least loss."""
LEAST_GAIN = 1e-7
"""Nats per token that an iteration still has to gain."""


@dataclass(frozen=True)
class SurfaceConstants:
    """Fitted to retrained models (research/LOG.md), for all families and targets together."""

    beta: float = 1.0
    """Prior mean of what a nat of the n-gram loss model is worth."""
    beta_spread: float = 0.2
    slope_bias: float = 0.7
    """SD of a slope's lasting error, as a share of the root mean square of the slopes: the bias of
    a short horizon does not fall with more sequences. And of a short branch's."""
    scale: float = 0.2
    """Of the prior of d, in nats per unit of share."""
    freedom: float = 2.0
    """Degrees of freedom of that prior."""
    bend: float = 0.02
    """c, a share."""
    level_noise: float = 0.02
    """SD of a training's loss over seeds, in nats; finished runs may say another one."""
    level_error: float = 0.08
    """SD of the run's own level as that of a fresh training, in nats: a search trains on
    micro-batches of one source each, and looks at few target sequences. Differences between
    mixtures are free of it."""
    misfit: float = 0.1
    """SD of the surface's own error, in nats per unit of total variation from u."""
    misfit_length: float = 0.4
    """Of its correlation between mixtures (`misfit.py`)."""


@dataclass(frozen=True)
class TargetPosterior:
    """Of (a, beta, d)."""

    mean: FloatArray
    """[2 + S]"""
    covariance: FloatArray
    """[2 + S, 2 + S]"""
    known: KnownRuns | None = None
    """Finished runs, near which the surface follows them."""


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
        rows = self._design(mixtures)
        means = np.empty(rows.shape[:2])
        variances = np.empty(rows.shape[:2])
        for number, target in enumerate(self.targets):
            expected, covariance = self._joint(target, rows[:, number], mixtures)
            means[:, number] = expected
            variances[:, number] = np.diag(covariance) + self.noise(number) ** 2
        return Prediction(means, np.sqrt(variances))

    def noise(self, target: int) -> float:
        """SD in nats over seeds of a training's loss on one target."""
        known = self.targets[target].known
        return self.constants.level_noise if known is None else known.noise

    @property
    def misfit(self) -> Misfit:
        """The surface's own error."""
        return misfit_of(self.reference, self.constants)

    def _design(self, mixtures: FloatArray) -> FloatArray:
        """[N, K, 2 + S]"""
        bend = self.constants.bend
        return design(mixtures, self.reference, self.ngrams, len(self.targets), bend)

    def _joint(
        self, target: TargetPosterior, rows: FloatArray, mixtures: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """[N] expected losses at mixtures [N, S] with design rows [N, 2 + S], and their [N, N]
        covariance, but for the noise of a seed."""
        own = self.misfit.covariance(mixtures, mixtures)
        expected = rows @ target.mean
        if target.known is not None:
            known = target.known
            shared = self.misfit.covariance(mixtures, known.mixtures)
            expected = expected + shared @ known.weights(target.mean)
            taken = shared @ known.precision
            rows = rows - taken @ known.rows
            own = own - taken @ shared.T
        return expected, rows @ target.covariance @ rows.T + own

    def together(self, mixtures: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """[N] the targets' expected mean loss by `weights` [K] at mixtures [N, S], and its [N, N]
        covariance, but for the noise of a seed; targets are wrong independently."""
        shares = weights / weights.sum()
        rows, count = self._design(mixtures), len(mixtures)
        mean, covariance = np.zeros(count), np.zeros((count, count))
        for number, (target, share) in enumerate(zip(self.targets, shares, strict=True)):
            expected, spread = self._joint(target, rows[:, number], mixtures)
            mean += share * expected
            covariance += share**2 * spread
        return mean, covariance

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
        for target, own, share in zip(self.targets, parameters, shares, strict=True):
            if target.known is not None:
                weights = share * target.known.weights(own)
                more, slope = self.misfit.pull(mixture, target.known.mixtures, weights)
                value += more
                gradient = gradient + slope
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
        both = np.stack((mixture, other))
        rows = self._design(both)
        means, variances = np.empty(len(self.targets)), np.empty(len(self.targets))
        for number, target in enumerate(self.targets):
            expected, covariance = self._joint(target, rows[:, number], both)
            means[number] = expected[0] - expected[1]
            variances[number] = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        return means, np.sqrt(np.maximum(variances, 0))

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
    mixtures: FloatArray,
    reference: FloatArray,
    ngrams: NgramLossModel | None,
    target_count: int,
    bend: float,
) -> FloatArray:
    """[N, K, 2 + S] what the losses at mixtures [N, S] weigh (a, beta, d) with."""
    scale = reference + bend
    rows = np.zeros((len(mixtures), target_count, 2 + len(reference)))
    rows[:, :, 0] = 1.0
    rows[:, :, 2:] = -(scale * np.log((mixtures + bend) / scale))[:, None]
    if ngrams is not None:
        at_reference, _ = ngrams.losses(reference)
        for row, mixture in zip(rows, mixtures, strict=True):
            row[:, 1] = ngrams.losses(mixture)[0] - at_reference
    return rows


def misfit_of(reference: FloatArray, constants: SurfaceConstants) -> Misfit:
    """The surface's own error around u [S]."""
    return Misfit(reference, constants.misfit, constants.misfit_length)
