"""The loss surface's own error: a Gaussian process over mixtures that is 0 at the run's mixture.

What n-grams and discrepancies leave out grows with the distance from the mixture u that the run
trained on, and is alike for mixtures that are alike. Its covariance is

    k(x, y) = SD^2 t(x) t(y) exp( -|x - y|^2 / (2 length^2) )

with t(x) the total variation from u.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray


@dataclass(frozen=True)
class Misfit:
    """The process.

    Args:
        reference: [S] u.
        deviation: SD per unit of total variation from u, in nats.
        length: of the correlation.
    """

    reference: FloatArray
    deviation: float
    length: float

    def covariance(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """[N, M] between mixtures [N, S] and [M, S], in nats squared."""
        moved = np.outer(self._moved(first), self._moved(second))
        return self.deviation**2 * moved * self._correlation(first, second)

    def pull(
        self, mixture: FloatArray, others: FloatArray, weights: FloatArray
    ) -> tuple[float, FloatArray]:
        """What weighted values at other mixtures add to the loss, and its [S] derivatives.

        Args:
            mixture: [S]
            others: [N, S]
            weights: [N]
        """
        moved = float(self._moved(mixture[None])[0])
        correlation = self._correlation(mixture[None], others)[0]
        parts = self.deviation**2 * weights * self._moved(others) * correlation  # [N]
        slope = -moved * (parts @ (mixture - others)) / self.length**2
        slope += parts.sum() * 0.5 * np.sign(mixture - self.reference)
        return moved * float(parts.sum()), slope

    def _moved(self, mixtures: FloatArray) -> FloatArray:
        return 0.5 * np.abs(mixtures - self.reference).sum(axis=1)

    def _correlation(self, first: FloatArray, second: FloatArray) -> FloatArray:
        squares = ((first[:, None] - second[None]) ** 2).sum(axis=2)
        return np.asarray(np.exp(-squares / (2 * self.length**2)))
