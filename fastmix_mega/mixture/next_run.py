"""Which finished run would tell most about the best mixture: small mathematics.

Candidates are the mixtures that are best for draws of the surface's posterior. A draw of all their
losses at once says which of them is the best, so that many draws give each one's probability p. A
run on candidate j would reduce the variance of candidate i's loss by

    C_ij^2 / (C_jj + noise^2),

with C the posterior covariance of the losses. The run that tells most has the largest reduction,
weighted by p: it looks where the best mixture may be, and not where the surface is merely unsure.
"""

from __future__ import annotations

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.surface import LossSurface

DRAWS = 500


def most_telling(found: LossSurface, candidates: FloatArray, weights: FloatArray, seed: int) -> int:
    """Which of the candidates a run should be trained on.

    Args:
        found: the surface.
        candidates: [N, S] mixtures that may be best.
        weights: [K] of the targets; they need not sum to 1.
        seed: of the draws.
    """
    mean, covariance = found.together(candidates, weights)
    # A seed may be bad for all targets at once.
    noises = np.array([found.noise(number) for number in range(len(weights))])
    noise = float(weights @ noises / weights.sum())
    return most_reducing(mean, covariance, noise, seed)


def most_reducing(mean: FloatArray, covariance: FloatArray, noise: float, seed: int) -> int:
    """As `most_telling`, from the losses' [N] means and [N, N] covariance, and a run's noise."""
    random = np.random.default_rng(seed)
    draws = random.multivariate_normal(mean, covariance, DRAWS, method="eigh")
    best = np.bincount(draws.argmin(axis=1), minlength=len(mean)) / DRAWS
    reduction = (best @ covariance**2) / (np.diag(covariance) + noise**2)
    return int(reduction.argmax())
