"""From evidence to the posterior of a loss surface (`surface.py`).

The posterior is Gaussian for given scales of the d_i. The scales follow from the EM iteration of
the Student-t (Lange, Little and Taylor, 1989), so that a source whose evidence disagrees with its
n-grams is set free, and the others are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.misfit import Misfit
from fastmix_mega.mixture.ngram_loss import NgramLossModel
from fastmix_mega.mixture.surface import (
    LossSurface,
    SurfaceConstants,
    TargetPosterior,
    design,
    misfit_of,
)
from fastmix_mega.mixture.surface_values import RunErrors, TargetValues, Values, known_runs

EM_ITERATIONS = 50
LEAST_ERROR = 1e-6
"""Of a slope, in nats: scores that are all the same have none of their own, and rounding must not
hide what little the prior knows."""


@dataclass(frozen=True)
class Slopes:
    """What late scores say of one target: [S] nats per unit of share, higher is better."""

    mean: FloatArray
    standard_error: FloatArray
    seen: FloatArray
    """[S] observations; sources with 0 say nothing."""


@dataclass(frozen=True)
class Evidence:
    """What the run itself says of one target."""

    level: float
    """Its loss."""
    slopes: Slopes | None = None


@dataclass(frozen=True)
class Recorded:
    """All that is known: the posterior follows from it."""

    reference: FloatArray
    """[S] u."""
    ngrams: NgramLossModel | None
    evidence: Sequence[Evidence]
    """Of the run, one per target."""
    values: Values | None = None
    """Other runs."""
    constants: SurfaceConstants = field(default_factory=SurfaceConstants)

    def with_runs(self, more: Values | None) -> LossSurface:
        """The posterior, with more finished runs."""
        values = self.values
        if more is not None:
            values = more if values is None else values.and_also(more)
        return fit(self.reference, self.ngrams, self.evidence, values, self.constants)


def fit(
    reference: FloatArray,
    ngrams: NgramLossModel | None,
    evidence: Sequence[Evidence],
    values: Values | None = None,
    constants: SurfaceConstants | None = None,
) -> LossSurface:
    """The posterior of every target.

    Args:
        reference: [S] u.
        ngrams: of the same targets in the same order.
        evidence: of the run, one per target.
        values: other runs, with their rows (`with_rows`) if the posterior is fitted repeatedly.
        constants: of the prior and of the errors.
    """
    constants = constants or SurfaceConstants()
    slopes = np.zeros((len(evidence), len(reference)))
    if ngrams is not None:
        slopes = -ngrams.losses(reference)[1]
    if values is not None:
        values = with_rows(values, reference, ngrams, constants)
    misfit = misfit_of(reference, constants)
    targets = [
        _fit_target(
            slopes[number], each, None if values is None else values.of(number), misfit, constants
        )
        for number, each in enumerate(evidence)
    ]
    return LossSurface(reference, ngrams, targets, constants)


def with_rows(
    values: Values,
    reference: FloatArray,
    ngrams: NgramLossModel | None,
    constants: SurfaceConstants,
) -> Values:
    """With the rows [N, K, P] that the posterior weighs its parameters with: of many n-grams they
    take a while, and depend on no loss."""
    if values.rows is not None:
        return values
    count = values.losses.shape[1]
    rows = design(values.mixtures, reference, ngrams, count, constants.bend)
    return replace(values, rows=rows)


def _fit_target(
    ngram_slopes: FloatArray,
    evidence: Evidence,
    values: TargetValues | None,
    misfit: Misfit,
    constants: SurfaceConstants,
) -> TargetPosterior:
    """
    Args:
        ngram_slopes: [S] of the n-gram loss model at u, higher is better.
        evidence: of the run.
        values: other runs that know the target.
        misfit: of the surface.
        constants: of the prior and of the errors.
    """
    weighted, answers = own_rows(evidence, ngram_slopes, constants)
    prior = prior_means(evidence.level, len(ngram_slopes), constants)
    found = student_posterior(weighted, answers, prior, constants)
    if values is None or len(values.losses) == 0:
        return found
    before = (found.mean, found.covariance)
    errors = RunErrors(misfit, constants.level_noise, constants.slope_bias)
    known = known_runs(values, errors, before)
    whitened, told = known.whitened
    found = student_posterior(
        np.concatenate((weighted, whitened)), np.concatenate((answers, told)), prior, constants
    )
    return replace(found, known=known)


def own_rows(
    evidence: Evidence, ngram_slopes: FloatArray, constants: SurfaceConstants
) -> tuple[FloatArray, FloatArray]:
    """[N, P] and [N]: what the run says of (a, beta, d), divided by its noise."""
    rows: list[FloatArray] = [np.eye(1, 2 + len(ngram_slopes))[0]]
    seen, noise = [evidence.level], [constants.level_error]
    if evidence.slopes is not None:
        more = _slope_rows(evidence.slopes, ngram_slopes, constants)
        rows += more[0]
        seen += more[1]
        noise += more[2]
    return np.array(rows) / np.array(noise)[:, None], np.array(seen) / np.array(noise)


def prior_means(level: float, count: int, constants: SurfaceConstants) -> FloatArray:
    """[P] of (a, beta, d), with `count` sources."""
    return np.concatenate(([level, constants.beta], np.zeros(count)))


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
        noise.append(max(float(error), LEAST_ERROR))
    return rows, values, noise


def student_posterior(
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
    told = rows.T @ rows
    for _ in range(EM_ITERATIONS):
        level_and_beta = np.array([1e-2, constants.beta_spread**-2])
        precision = np.diag(np.concatenate((level_and_beta, 1 / variances)))
        covariance = _inverse(told + precision)
        mean = np.asarray(covariance @ (rows.T @ answers + precision @ prior), np.float64)
        squares = mean[2:] ** 2 + np.diag(covariance)[2:]
        # Large discrepancies get large scales of their own.
        spread = (constants.freedom * constants.scale**2 + squares) / (constants.freedom + 1)
        if np.allclose(spread, variances, rtol=1e-6):
            break
        variances = np.asarray(spread)
    return TargetPosterior(mean, covariance)


def _inverse(matrix: FloatArray) -> FloatArray:
    """Of a symmetric positive definite [P, P]: a third of the time of one that knows neither."""
    from scipy.linalg.lapack import dpotrf, dpotri

    root, failed = dpotrf(matrix)
    if failed:  # Only of numbers that are not finite, as damaged files hold them.
        return np.asarray(np.linalg.inv(matrix), np.float64)
    upper, _ = dpotri(root)
    return np.triu(upper) + np.triu(upper, 1).T
