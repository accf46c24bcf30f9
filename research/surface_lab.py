"""A posterior over the loss of any mixture, from the evidence of one run: small mathematics.

The surface of one target over mixtures lambda [S], with u uniform:

    L(lambda) = a + beta (B(lambda) - B(u)) - sum_i d_i g_i(lambda)
    g_i(lambda) = h(lambda_i) - h(u_i),    h(x) = (u + c) log(x + c)

B is the loss of the bigram law, and d_i what source i is worth beyond it (or short of it): the
discrepancy, in nats per unit of share at uniform, since h'(u) = 1. h bends: more of one source is
worth less and less. The prior of every d_i is a Student-t with few degrees of freedom: most
statistics are nearly right about most sources, and one may be wrong about one source entirely.

Evidence is linear in the unknowns x = (a, beta, d):
    a value: the loss of a finished run at some mixture, with the noise of a training seed;
    a slope: what late scores say of source i at uniform, kappa (beta b_i + d_i) less the mean over
    sources, with b_i = -dB/dlambda_i, and an error of two parts: the scores' own noise, and a bias
    that is measured on the judge's records.

The posterior is Gaussian for given scales of the d_i; the scales are found by the EM iteration of
the Student-t (each d_i's scale follows from its own size), so that a source that disagrees with its
prior is freed, and the others are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Law = Callable[[FloatArray], tuple[float, FloatArray]]
"""The bigram law of a target: its loss at a mixture, and [S] the derivatives."""


@dataclass(frozen=True)
class Constants:
    """What was fitted to the judge's records, for all families and targets together."""

    beta: float = 1.0
    """Prior mean of what a nat of the bigram law is worth."""
    beta_spread: float = 0.3
    kappa: float = 1.0
    """What a score's slope says of the surface's slope."""
    slope_bias: float = 0.1
    """SD of a slope's error that more sequences do not mend, in nats per unit of share, as a share
    of the root mean square of the slopes."""
    scale: float = 0.3
    """Of the prior of d, in nats per unit of share."""
    freedom: float = 2.0
    """Degrees of freedom of that prior."""
    bend: float = 0.05
    """c of h, a share."""
    level_noise: float = 0.02
    """SD of a training's loss over seeds, in nats."""
    misfit: float = 0.05
    """SD of the surface's own error, in nats per unit of total variation from uniform."""


@dataclass(frozen=True)
class Slopes:
    """What late scores say at uniform: [S] nats per unit of share, higher is better."""

    mean: FloatArray
    standard_error: FloatArray


@dataclass(frozen=True)
class Values:
    """Losses [N] of finished runs at mixtures [N, S]."""

    mixtures: FloatArray
    losses: FloatArray


@dataclass(frozen=True)
class Surface:
    """The posterior of one target."""

    law: Law
    constants: Constants
    mean: FloatArray
    """[2 + S] of (a, beta, d)."""
    covariance: FloatArray
    """[2 + S, 2 + S]"""

    def predict(self, mixtures: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Losses [N] of mixtures [N, S] and standard deviations, those of a fresh training."""
        rows = np.array([design(mixture, self.law, self.constants) for mixture in mixtures])
        moved = 0.5 * np.abs(mixtures - 1 / mixtures.shape[1]).sum(axis=1)
        own = (self.constants.misfit * moved) ** 2 + self.constants.level_noise**2
        variance = np.einsum("ni,ij,nj->n", rows, self.covariance, rows) + own
        return rows @ self.mean, np.sqrt(variance)

    def gradient(self, mixture: FloatArray) -> FloatArray:
        """[S] of the mean with respect to the mixture."""
        _, of_law = self.law(mixture)
        bend = self.constants.bend
        bent = (1 / len(mixture) + bend) / (mixture + bend)
        return self.mean[1] * of_law - self.mean[2:] * bent

    def best(self, floor: float = 0.0, steps: int = 400) -> FloatArray:
        """[S] the mixture of the least mean loss, by exponentiated gradient descent."""
        count = len(self.mean) - 2
        mixture = np.full(count, 1 / count)
        loss, step = self._mean_loss(mixture), 1.0
        for _ in range(steps):
            gradient = self.gradient(mixture)
            logs = np.log(np.maximum(mixture, 1e-12)) - step * (gradient - mixture @ gradient)
            moved = np.exp(logs - logs.max())
            moved /= moved.sum()
            found = self._mean_loss(moved)
            if found > loss:
                step /= 2
                continue
            if loss - found < 1e-10:
                break
            mixture, loss, step = moved, found, min(1.5 * step, 50.0)
        return (1 - floor) * mixture + floor / count

    def _mean_loss(self, mixture: FloatArray) -> float:
        return float(design(mixture, self.law, self.constants) @ self.mean)


def design(mixture: FloatArray, law: Law, constants: Constants) -> FloatArray:
    """[2 + S] what the loss at a mixture weighs (a, beta, d) with."""
    even = np.full(len(mixture), 1 / len(mixture))
    bent = (even + constants.bend) * np.log((mixture + constants.bend) / (even + constants.bend))
    return np.concatenate(([1.0, law(mixture)[0] - law(even)[0]], -bent))


def fit(
    law: Law, slopes: Slopes | None, values: Values, constants: Constants, iterations: int = 50
) -> Surface:
    """The posterior from a target's evidence.

    Args:
        law: of the target.
        slopes: of one run, or None.
        values: at least one run's loss: the level is known from nothing else.
        constants: of the judge.
        iterations: of EM.
    """
    count = values.mixtures.shape[1]
    rows = [design(mixture, law, constants) for mixture in values.mixtures]
    seen, noise = list(values.losses), [constants.level_noise] * len(values.losses)
    for row, mixture in zip(range(len(rows)), values.mixtures, strict=True):
        moved = 0.5 * np.abs(mixture - 1 / count).sum()
        noise[row] = float(np.hypot(constants.level_noise, constants.misfit * moved))
    if slopes is not None:
        even = np.full(count, 1 / count)
        of_law = -law(even)[1]
        centre = np.eye(count) - 1 / count
        size = float(np.sqrt(np.mean((centre @ slopes.mean) ** 2)))
        error = np.hypot(slopes.standard_error, constants.slope_bias * size)
        for source in range(count):
            told = np.concatenate(([0.0, centre[source] @ of_law], centre[source]))
            rows.append(constants.kappa * told)
            seen.append(float(centre[source] @ slopes.mean))
            noise.append(float(error[source]))
    weighted = np.array(rows) / np.array(noise)[:, None]
    answers = np.array(seen) / np.array(noise)
    level = float(values.losses.mean())
    prior_mean = np.concatenate(([level, constants.beta], np.zeros(count)))
    # From the wide side: from the narrow one the iteration never frees a source at all.
    variances = np.full(count, 100 * constants.scale**2 + 1.0)
    for _ in range(iterations):
        precision = np.diag(np.concatenate(([1e-2, constants.beta_spread**-2], 1 / variances)))
        covariance = np.linalg.inv(weighted.T @ weighted + precision)
        mean = covariance @ (weighted.T @ answers + precision @ prior_mean)
        squares = mean[2:] ** 2 + np.diag(covariance)[2:]
        # E step of the Student-t: large discrepancies get large scales of their own.
        new = (constants.freedom * constants.scale**2 + squares) / (constants.freedom + 1)
        if np.allclose(new, variances, rtol=1e-6):
            break
        variances = new
    return Surface(law, constants, mean, covariance)
