"""Losses of finished runs, as evidence of a loss surface.

The loss of a run on mixture x is the surface's linear part there, plus the surface's own error
(`misfit.py`), which neighbouring mixtures share, plus the noise of a training seed. So a prediction
is that of universal kriging (Cressie, 1993): near the runs it follows them, and far from them the
rest of the evidence.

How noisy a training is depends on the targets and the sources, so that runs say it themselves: the
noise is the one of the largest marginal likelihood, near the usual one unless they say otherwise.

Runs of another model, budget or text form a group of their own, with a free offset: they tell
differences between mixtures and no level. How large their differences are in this search's nats is
chosen by the marginal likelihood too, since units may differ.

Short branches of a trained model are such a group. A short horizon is wrong about a mixture however
well it is measured, as late scores are: each has a lasting error besides, of a share of the group's
own spread.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.misfit import Misfit

OWN = 0
"""The group of runs that differ from the search in their mixture and seed alone."""
FREE = 10.0
"""SD of the offset of any other group, in nats."""
SCALES = np.geomspace(1 / 16, 16, 33)
SCALE_SPREAD = 1.0
"""SD of the prior of a scale's logarithm."""
NOISES = (1.0, 2.0, 4.0, 8.0)
"""How much noisier other groups may be."""
OWN_NOISES = 2.0 ** (np.arange(-4, 13) / 4)
"""How noisy the search's own kind of runs may be, in usual noises."""
NOISE_SPREAD = 0.5
"""SD of the prior of its logarithm."""


@dataclass(frozen=True)
class TargetValues:
    """Of one target, the runs that know it."""

    mixtures: FloatArray
    """[N, S]"""
    losses: FloatArray
    """[N]"""
    groups: NDArray[np.int64]
    """[N]"""
    short: NDArray[np.bool_]
    """[N]"""
    rows: FloatArray
    """[N, P] what the losses weigh the surface's parameters with."""


@dataclass(frozen=True)
class Values:
    """Losses in finished runs."""

    mixtures: FloatArray
    """[N, S]"""
    losses: FloatArray
    """[N, K], NaN where a run does not know a target."""
    groups: NDArray[np.int64]
    """[N] `OWN`, or the number of another group."""
    short: NDArray[np.bool_]
    """[N] whether it is a short branch of a trained model; alike in a group, never in `OWN`."""
    rows: FloatArray | None = None
    """[N, K, P] what the losses weigh the surface's parameters with."""

    def and_also(self, more: Values) -> Values:
        """These and others, whose groups stay apart."""
        last = int(self.groups.max(initial=OWN))
        groups = np.where(more.groups == OWN, OWN, more.groups + last)
        return Values(
            np.concatenate((self.mixtures, more.mixtures)),
            np.concatenate((self.losses, more.losses)),
            np.concatenate((self.groups, groups)),
            np.concatenate((self.short, more.short)),
        )

    def of(self, target: int) -> TargetValues:
        """Those of one target; the rows must be known."""
        assert self.rows is not None
        kept = np.isfinite(self.losses[:, target])
        return TargetValues(
            self.mixtures[kept],
            self.losses[kept, target],
            self.groups[kept],
            self.short[kept],
            self.rows[kept, target],
        )


@dataclass(frozen=True)
class KnownRuns:
    """Values with the covariance of their errors."""

    mixtures: FloatArray
    """[N, S]"""
    rows: FloatArray
    """[N, P] what they weigh the surface's parameters with."""
    losses: FloatArray
    """[N] in the search's own nats, but for the offsets of groups."""
    precision: FloatArray
    """[N, N] the inverse of the covariance of misfit, offsets and noise."""
    noise: float
    """SD in nats over seeds of a training of the search's own kind."""

    def weights(self, parameters: FloatArray) -> FloatArray:
        """[N] that the misfit's covariance with these runs is multiplied by in a prediction.

        Args:
            parameters: [P] of the surface.
        """
        return np.asarray(self.precision @ (self.losses - self.rows @ parameters))

    @property
    def whitened(self) -> tuple[FloatArray, FloatArray]:
        """[N, P] rows and [N] losses whose errors are independent, with an SD of 1."""
        root = np.linalg.cholesky(self.precision).T
        return np.asarray(root @ self.rows), np.asarray(root @ self.losses)


@dataclass(frozen=True)
class RunErrors:
    """What is known of runs' errors beforehand."""

    misfit: Misfit
    """Of the surface."""
    noise: float
    """The usual SD of a training's loss over seeds, in nats."""
    short_bias: float
    """SD of a short branch's lasting error, as a share of the spread of its group's losses."""


def known_runs(
    values: TargetValues, errors: RunErrors, before: tuple[FloatArray, FloatArray]
) -> KnownRuns:
    """Values as evidence, noises and other groups' scales chosen.

    Args:
        values: of one target.
        errors: of runs.
        before: mean [P] and covariance [P, P] of the parameters without the values.
    """
    rows, groups = values.rows, values.groups
    noise = errors.noise
    covariance = errors.misfit.covariance(values.mixtures, values.mixtures)
    losses = values.losses.copy()
    mean, spread = before
    expected, shared = rows @ mean, rows @ spread @ rows.T + covariance
    own = np.flatnonzero(groups == OWN)
    own_noise = _noise(losses[own] - expected[own], shared[np.ix_(own, own)], noise)
    noises = np.full(len(losses), noise)
    noises[own] = own_noise
    for group in set(groups.tolist()) - {OWN}:
        its = np.flatnonzero(groups == group)
        told = _Told(values.losses[its], expected[its], shared[np.ix_(its, its)] + FREE**2)
        bias = errors.short_bias if values.short[its].all() else 0.0
        scale, noises[its] = _scale(told, noise, bias)
        losses[its] /= scale
    offsets = np.where((groups[:, None] == groups) & (groups != OWN), FREE**2, 0.0)
    whole = covariance + offsets + np.diag(noises**2)
    precision = np.asarray(np.linalg.inv(whole))
    return KnownRuns(
        mixtures=values.mixtures, rows=rows, losses=losses, precision=precision, noise=own_noise
    )


def _noise(errors: FloatArray, covariance: FloatArray, noise: float) -> float:
    """The likeliest SD of a run, in nats.

    Args:
        errors: [N] losses less what is expected.
        covariance: [N, N] of the errors, without noise.
        noise: the usual SD.
    """
    values, vectors = np.linalg.eigh(covariance)
    squares = (vectors.T @ errors) ** 2
    whole = np.maximum(values, 0) + (noise * OWN_NOISES[:, None]) ** 2
    likelihood = -0.5 * (squares / whole + np.log(whole)).sum(axis=1)
    likelihood -= 0.5 * (np.log(OWN_NOISES) / NOISE_SPREAD) ** 2
    return float(noise * OWN_NOISES[likelihood.argmax()])


@dataclass(frozen=True)
class _Told:
    """Losses of a group, and what is expected of them."""

    losses: FloatArray
    """[N] as they were given."""
    expected: FloatArray
    """[N] in nats."""
    covariance: FloatArray
    """[N, N] of the error, without noise."""


def _scale(told: _Told, noise: float, bias: float) -> tuple[float, float]:
    """The likeliest scale and noise of a group: losses = scale * (expected + error).

    Args:
        told: of the group.
        noise: SD of one run in nats, before it is multiplied.
        bias: SD of a lasting error, as a share of the losses' spread.

    Returns:
        The scale, and one run's SD in nats, its lasting error included.
    """
    losses, count = told.losses, len(told.losses)
    spread = bias * float(losses.std())
    best, most = (1.0, noise), -np.inf
    for factor, scale in itertools.product(NOISES, SCALES):
        deviation = float(np.hypot(noise * factor, spread / scale))
        root = np.linalg.cholesky(told.covariance + deviation**2 * np.eye(count))
        error = np.linalg.solve(root, losses / scale - told.expected)
        likelihood = -0.5 * float(error @ error) - float(np.log(np.diag(root)).sum())
        likelihood -= count * np.log(scale)
        likelihood -= 0.5 * (np.log(scale) / SCALE_SPREAD) ** 2
        if likelihood > most:
            best, most = (float(scale), deviation), likelihood
    return best
