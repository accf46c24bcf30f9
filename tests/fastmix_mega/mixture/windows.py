"""A window's [4, S] sums of scores, made up."""

from __future__ import annotations

import numpy as np

from fastmix_mega.arrays import FloatArray


def window(random: np.random.Generator, means: FloatArray, count: int = 20) -> FloatArray:
    """[4, S] sums of `count` scores per source, with noise of standard deviation 1."""
    values = means[:, None] + random.standard_normal((len(means), count))
    counts = np.full(len(means), count)
    return np.stack((values.sum(1), (values**2).sum(1), counts, counts))


def sums_of(values: list[float | None]) -> FloatArray:
    """[4, S] sums of one observation each; None for a source that was not seen."""
    seen = np.array([value is not None for value in values], float)
    known = np.array([0.0 if value is None else value for value in values])
    return np.stack((known, known**2, seen, seen))
