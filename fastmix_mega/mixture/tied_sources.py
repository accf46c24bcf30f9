"""Sources that keep their ratios: one group with one share, while the others are searched freely.

A mixture is then  lambda = A mu,  with mu [B] the shares of the group and of every free source, and
with A's first column the group's fixed ratios. By the chain rule the group's score is the mean of
its sources' scores, weighted by their ratios (Olmix, arXiv 2602.12237, calls this mixture reuse).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.simplex import mixture_standard_error


@dataclass(frozen=True)
class TiedSources:
    """Which sources are tied, and in which ratios."""

    ratios: FloatArray
    """[S] within the group, summing to 1; 0 for free sources."""
    ratio_errors: FloatArray
    """[S] standard errors of the ratios, from the search that found them; 0 for free sources."""
    kept: NDArray[np.bool_]
    """[S] whether a source is in the group: at least one is."""

    @property
    def free(self) -> NDArray[np.intp]:
        """[B - 1] the free sources, in order."""
        return np.flatnonzero(~self.kept)

    def average(self, scores: FloatArray) -> FloatArray:
        """[S] scores, with the group's own for each of its sources.

        Equal scores move equal sources alike: an exponentiated-gradient step keeps their ratios.
        """
        return np.where(self.kept, self.ratios @ scores, scores)

    def restore(self, mixture: FloatArray) -> FloatArray:
        """[S] the same mixture with the ratios to the last bit: rounding adds up over a run."""
        share = mixture[self.kept].sum()
        restored: FloatArray = np.where(self.kept, share * self.ratios, mixture)
        return restored

    def contract(self, mixture: FloatArray) -> FloatArray:
        """[S] -> [B] the group's share first, then the free sources'."""
        return np.concatenate(([mixture[self.kept].sum()], mixture[~self.kept]))

    def expand(self, shares: FloatArray) -> FloatArray:
        """[B] -> [S], the inverse of `contract`."""
        mixture = shares[0] * self.ratios
        mixture[self.free] = shares[1:]
        return mixture

    @property
    def even_distribution(self) -> FloatArray:
        """[S] what an explored sample is drawn from: even over the free shares.

        The group counts as one. With many untouched sources the free ones are seen much oftener
        than under a uniform distribution, which is what makes their search cheap.
        """
        count = 1 + len(self.free)
        return self.expand(np.full(count, 1.0 / count))

    def standard_errors(self, mixture: FloatArray, logit_variance: FloatArray) -> FloatArray:
        """[S] from independent variances of the sources' logits, and those of the ratios.

        The group moves by the weighted mean of its sources' scores, whose variances add up with
        the squares of the ratios.
        """
        shared = float((self.ratios**2 * logit_variance).sum())
        variance = np.concatenate(([shared], logit_variance[~self.kept]))
        shares = self.contract(mixture)
        errors = self.expand(mixture_standard_error(shares, variance))
        return np.hypot(errors, shares[0] * self.ratio_errors)
