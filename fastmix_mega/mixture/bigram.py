"""The bigram loss model, and the first mixture of a trajectory that begins with bigrams.

A model that knew nothing but bigrams would learn from a budget's tokens

    P(y | x) = (n(x, y) + a u(y)) / (n(x) + a),    n(x, y) = sum_i used_i * P_i(x, y)

with P_i the frequencies of bigrams in source i, u those of single tokens in the mixture, and
`used_i` the tokens of source i that the budget takes, where repeated text counts for less. Its
loss on the targets is a smooth function of the mixture, and the least one costs seconds. It knows
of saturation (a bigram that is known need not be learned again) and of repetition, which the scores
of single steps do not see. How a real model learns from the sources is beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, vstack

from fastmix_mega.arrays import FloatArray
from fastmix_mega.data.rows import Source
from fastmix_mega.mixture.constraints.solve import Node, project
from fastmix_mega.mixture.counting import (
    Tokens,
    read_sequences,
    sparse_row,
    tokens_per_source,
    told,
)
from fastmix_mega.mixture.descent import least_loss_mixture
from fastmix_mega.mixture.simplex import floored, fresh_epochs, most_epochs, worth_of_epochs

BIGRAM_TARGET_TOKENS = 1_000_000
"""Read of all targets together."""
BIGRAM_SMOOTHING = 300.0
"""a: as many tokens of the mixture at large as each token's followers are mixed with. From 80 to
1,000 the losses of a swarm of small proxies were predicted alike; with 300 the model's own loss is
nearest to theirs, and less of the mixture is junk than with 100 (research/decisions.md)."""
LEAST_GAIN = 1e-9
"""Nats per token that the last iteration still has to gain."""
MOST_ITERATIONS = 500


@dataclass(frozen=True)
class BigramCounts:
    """What the model needs to know of sources and targets."""

    bigrams: csr_array
    """[S, P] frequency of each of the targets' distinct bigrams in a source."""
    firsts: csr_array
    """[S, V] frequency of tokens with a follower."""
    seconds: csr_array
    """[S, V] frequency of tokens that follow one."""
    first: Tokens
    """[P] first token of each bigram."""
    second: Tokens
    """[P]"""
    weights: FloatArray
    """[P] the bigram's share of the targets, sum 1."""
    tokens: FloatArray
    """[S] tokens of the whole source."""
    counted: int
    """Tokens that were read of a source at most: the model cannot know more of it."""


def first_mixture(
    sources: Sequence[Source],
    targets: Sequence[Source],
    target_weights: FloatArray,
    vocab_size: int,
    budget: float,
    repetitions: float,
) -> FloatArray:
    """[S] the mixture of the least loss, none of it 0.

    Args:
        sources: opened.
        targets: opened.
        target_weights: [K] as in the configuration; they need not sum to 1.
        vocab_size: V, of the tokenizer.
        budget: tokens that the mixture is for.
        repetitions: epochs beyond the first after which one more is worth 1/e of fresh text.

    Raises:
        UserError: if one holds conversations, or no sequence at all.
    """
    counts = count_bigrams(sources, targets, target_weights, vocab_size)
    best = within_most_epochs(least_loss(counts, budget, repetitions), counts.tokens, budget)
    return floored(best)


def count_bigrams(
    sources: Sequence[Source],
    targets: Sequence[Source],
    target_weights: FloatArray,
    vocab_size: int,
) -> BigramCounts:
    """Read a sample of the sources and the targets.

    Raises:
        UserError: as `first_mixture`.
    """
    counted = tokens_per_source(len(sources))
    of_target = BIGRAM_TARGET_TOKENS // len(targets)
    every = [bigram_keys(read_sequences(target, of_target, 1), vocab_size) for target in targets]
    keys, weights = weighted_bigrams(every, target_weights)
    rows = [
        _frequencies(read_sequences(source, counted, 1), keys, vocab_size)
        for source in told(sources, "counting in sources")
    ]
    bigrams, firsts, seconds = (csr_array(vstack(column)) for column in zip(*rows, strict=True))
    tokens = np.array([source.num_tokens for source in sources], np.float64)
    first, second = keys // vocab_size, keys % vocab_size
    return BigramCounts(bigrams, firsts, seconds, first, second, weights, tokens, counted)


def bigram_loss(
    mixture: FloatArray, counts: BigramCounts, budget: float, repetitions: float
) -> tuple[float, FloatArray]:
    """Loss of the bigram model on the targets in nats per token, and its gradient.

    Epochs are counted at the budget itself, but no more tokens are taken for known than were read.

    Args:
        mixture: [S] not negative; need not sum to 1.
        counts: of the sources and targets.
        budget: in tokens.
        repetitions: as `first_mixture`.

    Returns:
        The loss, and [S] its derivatives with respect to the mixture.
    """
    counted = min(budget, counts.counted)
    epochs = budget * mixture / counts.tokens
    used = fresh_epochs(epochs, repetitions) * counts.tokens * (counted / budget)  # [S]
    singles = counts.seconds.T @ used + 1.0  # [V]
    unigram = (singles / singles.sum())[counts.second]  # [P]
    known = counts.bigrams.T @ used + BIGRAM_SMOOTHING * unigram
    context = (counts.firsts.T @ used)[counts.first] + BIGRAM_SMOOTHING
    loss = -float(counts.weights @ (np.log(known) - np.log(context)))
    of_known = counts.weights / known  # [P]
    by_second = np.bincount(counts.second, of_known, minlength=len(singles))  # [V]
    by_first = np.bincount(counts.first, counts.weights / context, minlength=len(singles))
    # Every source's frequencies of single tokens sum to 1.
    of_unigram = (counts.seconds @ by_second - of_known @ unigram) / singles.sum()
    of_used = counts.firsts @ by_first - counts.bigrams @ of_known - BIGRAM_SMOOTHING * of_unigram
    return loss, of_used * counted * worth_of_epochs(epochs, repetitions)


def least_loss(counts: BigramCounts, budget: float, repetitions: float) -> FloatArray:
    """[S] the mixture of least loss."""
    even = np.full(len(counts.tokens), 1 / len(counts.tokens))
    return least_loss_mixture(
        lambda mixture: bigram_loss(mixture, counts, budget, repetitions),
        even,
        LEAST_GAIN,
        MOST_ITERATIONS,
    )


def within_most_epochs(
    mixture: FloatArray, tokens: FloatArray, budget: float, read: FloatArray | None = None
) -> FloatArray:
    """[S] the nearest mixture that reads no source more than `most_epochs`.

    Args:
        mixture: [S], sum 1.
        tokens: [S] of the sources.
        budget: in tokens.
        read: [S] tokens of each that were read before.
    """
    most = most_shares(tokens, budget, read)
    if (mixture <= most).all():
        return mixture
    every = Node(sources=range(len(tokens)))
    return project(every, np.maximum(mixture, 1e-300), np.zeros_like(most), most)


def most_shares(tokens: FloatArray, budget: float, read: FloatArray | None = None) -> FloatArray:
    """[S] the shares at which the sources are read `most_epochs` times.

    Args:
        tokens: [S] of the sources.
        budget: in tokens.
        read: [S] tokens of each that were read before.
    """
    before = np.zeros_like(tokens) if read is None else read
    epochs = most_epochs((budget + before.sum()) / tokens)
    return np.asarray(np.clip((epochs * tokens - before) / budget, 0.0, 1.0))


def bigram_keys(sequences: Tokens, vocab_size: int) -> Tokens:
    """[n * s] numbers of the bigrams in [n, s + 1] sequences."""
    keys: Tokens = (sequences[:, :-1] * vocab_size + sequences[:, 1:]).ravel()
    return keys


def weighted_bigrams(
    every: Sequence[Tokens], target_weights: FloatArray
) -> tuple[Tokens, FloatArray]:
    """Distinct bigrams of all targets, sorted, and their weight: every target counts by its share.

    Args:
        every: per target, the numbers of its bigrams.
        target_weights: [K] as in the configuration; they need not sum to 1.
    """
    shares = target_weights / target_weights.sum()
    weights = [
        np.full(len(keys), share / len(keys)) for keys, share in zip(every, shares, strict=True)
    ]
    distinct, places = np.unique(np.concatenate(every), return_inverse=True)
    summed = np.bincount(places, weights=np.concatenate(weights))
    return distinct, summed.astype(np.float64)


def _frequencies(
    sequences: Tokens, keys: Tokens, vocab_size: int
) -> tuple[csr_array, csr_array, csr_array]:
    """[1, P] of the bigrams among the sorted `keys`, [1, V] of first and second tokens each."""
    seen, counts = np.unique(bigram_keys(sequences, vocab_size), return_counts=True)
    frequencies = counts / counts.sum()
    firsts, seconds = (
        csr_array(np.bincount(part, frequencies, minlength=vocab_size)[None])
        for part in (seen // vocab_size, seen % vocab_size)
    )
    return sparse_row(seen, frequencies, keys), firsts, seconds
