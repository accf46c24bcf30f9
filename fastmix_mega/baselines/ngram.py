"""`method: ngram`, or `fastmix ngram`: the mixture whose token pairs look most like the target's.

The control that every search must beat: no model is trained. Each source is a distribution over
pairs of neighbouring tokens, a mixture of sources is the mixture of these, and the target's
log-likelihood under it is concave in the shares: the best one is found exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.config import Config
from fastmix_mega.data.inputs import Inputs
from fastmix_mega.data.rows import Source
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.rule import FloatArray

MOST_ITERATIONS = 20_000


@dataclass(frozen=True)
class Fit:
    shares: FloatArray
    """[S], on the simplex."""
    gap: float
    """Nats per pair by which the best mixture can be better at most."""


def ngram_fit(config: Config, inputs: Inputs) -> Fit:
    """The mixture of the configuration's sources, from at most `ngram.tokens` tokens of each.

    Raises:
        UserError: if a source or a target is too short for two sequences.
    """
    count = max(2, config.ngram.tokens // config.train.seq_length)
    targets = [_pairs(target, count) for target in inputs.targets]
    given = np.array([target.weight for target in config.targets], np.float64)
    keys, weights = _weighted(targets, given / given.sum(), inputs.tokenizer.vocab_size)
    likelihoods = np.stack(
        [
            source_likelihoods(_pairs(source, count), keys, inputs.tokenizer.vocab_size)
            for source in inputs.sources
        ],
        axis=1,
    )  # [P, S]
    return fit_mixture(likelihoods, weights)


def fit_mixture(likelihoods: FloatArray, weights: FloatArray, tolerance: float = 1e-6) -> Fit:
    """Maximise sum_p weights[p] log(sum_i shares[i] likelihoods[p, i]) over the simplex.

    Expectation-maximisation, which cannot leave the simplex, nor get worse. With r_i the derivative
    for share i, max r_i - 1 bounds from above what is left to gain: the problem is concave.

    Args:
        likelihoods: [P, S], of every pair under every source; positive.
        weights: [P], sum 1.
        tolerance: nats per pair at which it ends.
    """
    shares = np.full(likelihoods.shape[1], 1 / likelihoods.shape[1])
    gap = np.inf
    for _ in range(MOST_ITERATIONS):
        ratios = (weights / (likelihoods @ shares)) @ likelihoods  # [S]
        gap = float(ratios.max() - 1)
        if gap <= tolerance:
            break
        shares = shares * ratios
        shares /= shares.sum()
    return Fit(shares, gap)


def source_likelihoods(
    sequences: NDArray[np.int64], keys: NDArray[np.int64], vocab_size: int
) -> FloatArray:
    """[P] probability of each pair in a source: its own pairs, smoothed by single tokens.

    P(x, y) = a * pairs(x, y) + (1 - a) * u(x) * u(y), with u add-one smoothed. Half of the
    sequences give the counts; the other half gives a, by maximum likelihood.

    Args:
        sequences: [n, s + 1] tokens, n >= 2.
        keys: [P] sorted pairs, first * vocab_size + second.
        vocab_size: of the tokenizer.
    """
    counted, judged = sequences[0::2], sequences[1::2]
    tokens = np.bincount(counted.ravel(), minlength=vocab_size).astype(np.float64) + 1
    singles: FloatArray = tokens / tokens.sum()
    seen, counts = np.unique(pair_keys(counted, vocab_size), return_counts=True)
    frequencies = counts / counts.sum()
    # Each pair of the other half, with the number of times that it stands there.
    other, times = np.unique(pair_keys(judged, vocab_size), return_counts=True)
    columns = np.stack(
        (_look_up(other, seen, frequencies), _independent(other, singles, vocab_size)), axis=1
    )
    share = fit_mixture(columns, times / times.sum()).shares[0]
    joint = _look_up(keys, seen, frequencies)
    found: FloatArray = share * joint + (1 - share) * _independent(keys, singles, vocab_size)
    # A source that repeats itself word for word needs no smoothing; zero would rule it out.
    return np.maximum(found, np.finfo(np.float64).tiny)


def pair_keys(sequences: NDArray[np.int64], vocab_size: int) -> NDArray[np.int64]:
    """[n * s] numbers of the pairs of neighbouring tokens in [n, s + 1] sequences."""
    keys: NDArray[np.int64] = (sequences[:, :-1] * vocab_size + sequences[:, 1:]).ravel()
    return keys


def _independent(keys: NDArray[np.int64], singles: FloatArray, vocab_size: int) -> FloatArray:
    product: FloatArray = singles[keys // vocab_size] * singles[keys % vocab_size]
    return product


def _look_up(
    keys: NDArray[np.int64], seen: NDArray[np.int64], frequencies: FloatArray
) -> FloatArray:
    places = np.minimum(np.searchsorted(seen, keys), len(seen) - 1)
    return np.where(seen[places] == keys, frequencies[places], 0.0)


def _weighted(
    targets: list[NDArray[np.int64]], shares: FloatArray, vocab_size: int
) -> tuple[NDArray[np.int64], FloatArray]:
    """Distinct pairs of all targets, sorted, and their weight: every target counts by its share."""
    every = [pair_keys(target, vocab_size) for target in targets]
    weights = [
        np.full(len(keys), share / len(keys)) for keys, share in zip(every, shares, strict=True)
    ]
    distinct, places = np.unique(np.concatenate(every), return_inverse=True)
    summed = np.bincount(places, weights=np.concatenate(weights))
    return distinct, summed.astype(np.float64)


def _pairs(source: Source, count: int) -> NDArray[np.int64]:
    if source.masked:
        raise UserError(
            f"{source.name} holds conversations; token pairs are compared of text alone, where "
            "every token counts"
        )
    if source.num_samples < 2:
        raise UserError(
            f"{source.name} holds fewer than two sequences of train.seq_length "
            f"{source.seq_length}: lower train.seq_length"
        )
    return source.samples(np.arange(min(count, source.num_samples)))
