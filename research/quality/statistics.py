"""What the records say: paired differences, regret, agreement with the swarm. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.pool import rank_correlation
from fastmix_mega.mixture.simplex import effective_sources


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences."""

    mean: float
    error: float | None
    """Standard error; None for a single pair."""
    pairs: int

    @property
    def sigmas(self) -> float | None:
        return None if not self.error else self.mean / self.error


def summary(losses: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1); None for a single value."""
    values = np.asarray(losses)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None


def paired(mine: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    """Mine minus the other's, by seed; None if no seed is common."""
    seeds = sorted(set(mine) & set(other))
    if not seeds:
        return None
    gaps = np.array([mine[seed] - other[seed] for seed in seeds])
    error = float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else None
    return Difference(float(gaps.mean()), error, len(gaps))


def pooled_deviation(groups: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """A common standard deviation of several groups about their own means, and its degrees of
    freedom; None if no group has two values. Three seeds alone say little of a deviation."""
    squares, freedom = 0.0, 0
    for group in groups:
        values = np.asarray(group)
        if len(values) > 1:
            squares += float(((values - values.mean()) ** 2).sum())
            freedom += len(values) - 1
    return (float(np.sqrt(squares / freedom)), freedom) if freedom else None


def marginal_values(mixtures: FloatArray, losses: FloatArray, penalty: float = 0.1) -> FloatArray:
    """[S] by how much a source's share lowers the loss, from a swarm, up to a common constant.

    Minus the slopes of a ridge regression of the losses on the shares about their means.

    Args:
        mixtures: [N, S].
        losses: [N].
        penalty: of the ridge, as a share of the shares' mean variance.
    """
    shares = mixtures - mixtures.mean(axis=0)
    scatter = shares.T @ shares
    ridge = penalty * np.trace(scatter) / len(scatter)
    slopes = np.linalg.solve(scatter + ridge * np.eye(len(scatter)), shares.T @ losses)
    values: FloatArray = -slopes
    return values


def agreement(scores: FloatArray, values: FloatArray) -> float:
    """Rank correlation of a search's scores with the swarm's marginal values."""
    return rank_correlation(scores, values)


def spread(weights: FloatArray) -> tuple[float, float]:
    """Over several searches [K, S]: mean effective sources, and the mean over sources of the
    standard deviation of a share."""
    effective = float(np.mean([effective_sources(row) for row in weights]))
    deviation = float(weights.std(axis=0, ddof=1).mean()) if len(weights) > 1 else float("nan")
    return effective, deviation


def verdict(difference: Difference | None, fallback: float | None) -> str:
    """In words: better, worse or equal within the noise, at two standard errors.

    Args:
        difference: mine minus the other's; negative is better.
        fallback: standard deviation of one paired difference, from others; None if not known.
    """
    if difference is None:
        return "not run"
    errors = [] if difference.error is None else [difference.error]
    if fallback is not None:
        errors.append(fallback / np.sqrt(difference.pairs))
    if not errors:
        return "one seed"
    error = max(errors)
    if abs(difference.mean) <= 2 * error:
        return "equal within noise"
    return "better" if difference.mean < 0 else "worse"
