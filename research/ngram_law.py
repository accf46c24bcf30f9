"""What n-grams say about a mixture, at a budget: the pair law of the product with longer contexts.

A model that knew nothing but the n tokens before would learn from a budget's tokens

    p_n(y | x_n) = ( c_n(x_n, y) + a_n p_(n-1)(y | x_(n-1)) ) / ( c_n(x_n) + a_n ),
    c_n = sum_i used_i P_i,n

with P_i,n the frequencies of n-grams in source i, p_0 the single tokens, and `used_i` the tokens of
source i that the budget takes. n = 1 is the pair law. Text drawn from a pair law has the target's
pairs and few of its longer n-grams, so that a law of longer contexts sees through it. The loss and
its gradient are exact sums over the target's distinct contexts; no training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Tokens = NDArray[np.int64]
Keys = NDArray[np.uint64]
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class NgramCounts:
    """Frequencies of the target's distinct n-grams in every source."""

    together: list[FloatArray]
    """Per context length from 1: [U, S] of context and next token, per token of the source."""
    alone: list[FloatArray]
    """Per context length from 1: [U, S] of the context."""
    singles: FloatArray
    """[U, S] of the next token."""
    weights: FloatArray
    """[U] the n-gram's share of the target, sum 1."""


def count_ngrams(
    sources: Sequence[Tokens], target: Tokens, longest: int, vocab_size: int
) -> NgramCounts:
    """Count a target's n-grams in the sources.

    Args:
        sources: [n, s + 1] sequences each.
        target: [n, s + 1] sequences.
        longest: context, in tokens.
        vocab_size: tokens are below it.
    """
    contexts, nexts = _keys(target, longest, vocab_size)
    whole = _with_next(contexts[-1], nexts)
    _, first, places = np.unique(whole, return_index=True, return_inverse=True)
    weights = np.bincount(places) / len(whole)
    contexts = [each[first] for each in contexts]
    nexts = nexts[first]
    wanted = [_with_next(each, nexts) for each in contexts]
    together = [np.zeros((len(first), len(sources))) for _ in contexts]
    alone = [np.zeros((len(first), len(sources))) for _ in contexts]
    singles = np.zeros((len(first), len(sources)))
    for number, source in enumerate(sources):
        found, following = _keys(source, longest, vocab_size)
        count = len(following)
        singles[:, number] = np.bincount(following, minlength=vocab_size)[nexts] / count
        for length, keys in enumerate(found):
            both = _with_next(keys, following)
            together[length][:, number] = _frequency(both, wanted[length])
            alone[length][:, number] = _frequency(keys, contexts[length])
    return NgramCounts(together, alone, singles, weights)


def ngram_loss(
    used: FloatArray, counts: NgramCounts, concentrations: Sequence[float]
) -> tuple[float, FloatArray]:
    """Nats per token on the target, and [S] the derivatives with respect to the tokens used.

    Args:
        used: [S] tokens of each source, not negative.
        counts: of the target.
        concentrations: a_n of the context lengths from 1; as many as are to be used.
    """
    total = used.sum()
    probability = (counts.singles @ used + 1e-3) / total  # [U]
    slope = counts.singles / total - (probability / total)[:, None]  # [U, S]
    for length, weight in enumerate(concentrations):
        together, alone = counts.together[length], counts.alone[length]
        below = alone @ used + weight
        probability = (together @ used + weight * probability) / below
        slope = (together - probability[:, None] * alone + weight * slope) / below[:, None]
    loss = -float(counts.weights @ np.log(probability))
    return loss, -(counts.weights / probability) @ slope


def _keys(sequences: Tokens, longest: int, vocab_size: int) -> tuple[list[Keys], Tokens]:
    """Per context length a number for the context of every token, and the token itself."""
    rows, size = sequences.shape
    before = np.full((rows, longest), vocab_size, np.int64)
    padded = np.concatenate((before, sequences), axis=1).astype(np.uint64)
    nexts = sequences[:, 1:].ravel()
    contexts, key = [], np.zeros((rows, size - 1), np.uint64)
    for back in range(1, longest + 1):
        start = longest + 1 - back
        key = _mixed(key * _FACTOR + padded[:, start : start + size - 1] + np.uint64(1))
        contexts.append(key.ravel())
    return contexts, nexts


def _with_next(contexts: Keys, nexts: Tokens) -> Keys:
    return _mixed((contexts ^ np.uint64(0x5851F42D4C957F2D)) * _FACTOR + nexts.astype(np.uint64))


def _mixed(keys: Keys) -> Keys:
    keys = keys ^ (keys >> np.uint64(29))
    return keys * np.uint64(0xBF58476D1CE4E5B9)


def _frequency(keys: Keys, wanted: Keys) -> FloatArray:
    """[U] the share of the keys that are each of the wanted ones."""
    known, places = np.unique(wanted, return_inverse=True)
    spots = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    hits = known[spots] == keys
    found = np.bincount(spots[hits], minlength=len(known)) / len(keys)
    return np.asarray(found[places], np.float64)
