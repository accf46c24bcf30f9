"""A small n-gram loss model in the place of a large one, for pages and files.

Of the targets' n-grams a few hundred are kept, each with a weight of its own, so that their mean
loss is the whole model's at many mixtures: a quadrature with positive weights, which need not be
longer than the list of mixtures at which it is exact (Tchakaloff's theorem). It is again a
`NgramLossModel`, smooth and convex where the whole one is, and its error elsewhere is measured.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.sparse import csr_array

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.ngram_loss import Level, NgramCounts, NgramLossModel
from fastmix_mega.mixture.simplex import floored

MOST_MIXTURES = 200
"""At which the small model is fitted."""
FEWEST_MIXTURES = 40
MOST_NUMBERS = 40_000
"""Targets x mixtures x sources, about a fifth of the numbers that are kept."""
CANDIDATES = 3000
"""n-grams of each target among which to choose, drawn by their frequency."""
CHECKS = 30
"""Mixtures that are not fitted, on which the error is measured."""
DIGITS = 5
"""Of a frequency."""
SUM_WEIGHT = 10.0
"""How much the weights' sum of 1 counts beside a nat of loss."""


def fewer_ngrams(
    model: NgramLossModel, anchors: FloatArray, seed: int
) -> tuple[NgramLossModel, FloatArray]:
    """A model of at most `MOST_MIXTURES` n-grams a target.

    Args:
        model: the whole one.
        anchors: [N, S] mixtures at which the small model must be right.
        seed: of the draws.

    Returns:
        The small model, and [K] the root mean square of its error in nats at drawn mixtures.
    """
    random = np.random.default_rng(seed)
    weights = model.counts.weights
    room = MOST_NUMBERS // (len(weights) * anchors.shape[1])
    fitted = max(FEWEST_MIXTURES, min(MOST_MIXTURES, room))
    mixtures = np.concatenate((anchors, _draws(random, fitted + CHECKS, anchors.shape[1])))
    own_lengths = np.array(model.lengths) - 1, np.arange(len(weights))
    by_length = (model.losses_by_length(mixture, model.budget) for mixture in mixtures)
    whole = np.stack([each[own_lengths] for each in by_length])  # [N, K]

    own = [_candidates(random, each) for each in weights]
    candidates = np.unique(np.concatenate(own))
    small = replace(model, counts=_kept(model.counts, candidates, weights[:, candidates]))
    each = np.stack([small.ngram_losses(mixture) for mixture in mixtures])  # [N, longest, C]
    found = np.zeros((len(weights), len(candidates)))
    rows = len(mixtures) - CHECKS
    errors = np.empty((CHECKS, len(weights)))
    for target, (ngrams, length) in enumerate(zip(own, model.lengths, strict=True)):
        places = np.searchsorted(candidates, ngrams)
        losses = each[:, length - 1, places]
        system = np.append(losses[:rows], np.full((1, len(places)), SUM_WEIGHT), axis=0)
        found[target, places] = nnls(system, np.append(whole[:rows, target], SUM_WEIGHT))[0]
        errors[:, target] = losses[rows:] @ found[target, places] - whole[rows:, target]
    chosen = np.flatnonzero(found.any(axis=0))
    counts = _kept(small.counts, chosen, found[:, chosen])
    return replace(model, counts=counts), np.sqrt(np.mean(errors**2, axis=0))


def _draws(random: np.random.Generator, count: int, sources: int) -> FloatArray:
    """[count, S] even and lopsided mixtures, such as a search could answer."""
    spreads = random.choice([0.3, 1.0, 3.0], count)
    return np.stack([floored(random.dirichlet(np.full(sources, spread))) for spread in spreads])


def _candidates(random: np.random.Generator, weights: FloatArray) -> NDArray[np.intp]:
    """Sorted places of n-grams of one target."""
    seen = np.flatnonzero(weights)
    if len(seen) <= CANDIDATES:
        return seen
    chances = weights[seen] / weights[seen].sum()
    return np.sort(random.choice(seen, CANDIDATES, replace=False, p=chances))


def _kept(counts: NgramCounts, ngrams: NDArray[np.intp], weights: FloatArray) -> NgramCounts:
    """With these n-grams [C] alone, of weights [K, C]; frequencies rounded."""
    distinct, single_at = np.unique(counts.single_at[ngrams], return_inverse=True)
    levels = []
    for level in counts.levels:
        followed, followed_at = np.unique(level.followed_at[ngrams], return_inverse=True)
        contexts, context_at = np.unique(level.context_at[ngrams], return_inverse=True)
        levels.append(
            Level(
                _columns(level.followed, followed),
                _columns(level.contexts, contexts),
                followed_at,
                context_at,
            )
        )
    singles = _rounded(counts.singles[:, distinct])
    return replace(
        counts, singles=singles, single_at=single_at, levels=tuple(levels), weights=weights
    )


def _columns(table: csr_array, places: NDArray[np.intp]) -> csr_array:
    kept = csr_array(table.tocsc()[:, places])
    kept.data = _rounded(kept.data)
    return kept


def _rounded(values: FloatArray) -> FloatArray:
    """To `DIGITS` significant digits."""
    size = 10.0 ** (DIGITS - 1 - np.floor(np.log10(np.where(values > 0, values, 1.0))))
    return np.asarray(np.round(values * size) / size)
