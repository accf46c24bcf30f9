"""The n-gram loss model: what a model of n-grams would lose on the targets, for any mixture.

A model that knew nothing but the n tokens before each token would learn, from the tokens that a
budget takes of every source,

    p_n(y | x) = ( c_n(x, y) + a_n p_{n-1}(y | x') ) / ( c_n(x) + a_n ),
    c_n = sum_i used_i * P_{i,n},

with P_{i,n} the frequencies of n-grams in source i, x' the context without its first token, and p_0
the frequencies of single tokens (interpolated smoothing; MacKay and Peto, 1995). `used_i` is the
number of tokens of source i that the budget takes, where repeated text counts for less. The loss on
the targets is a smooth function of the mixture with an exact gradient, and costs no training.

With n = 1 it is the bigram loss model. Longer contexts see through text that has the targets'
bigrams and nothing else; a model that has hardly learned bigrams does not see through it. So each
target has the shortest contexts that lose no more than the model that is trained. How a real model
learns from the sources is beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from fastmix_mega.arrays import FloatArray
from fastmix_mega.data.rows import Source
from fastmix_mega.mixture.counting import (
    Tokens,
    read_sequences,
    sparse_row,
    tokens_per_source,
    told,
)
from fastmix_mega.mixture.simplex import fresh_epochs, worth_of_epochs

NGRAM_TARGET_TOKENS = 400_000
"""Read of all targets together: the loss is a sum over their distinct n-grams."""
NGRAM_SMOOTHING = (30.0, 10.0, 5.0, 3.0)
"""a_n of contexts of 1, 2, ... tokens, where they are not fitted."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Keys = NDArray[np.uint64]


@dataclass(frozen=True)
class Level:
    """The contexts of one length."""

    followed: csr_array
    """[S, D] frequency of each distinct context with its next token in a source."""
    contexts: csr_array
    """[S, C] frequency of each distinct context."""
    followed_at: NDArray[np.intp]
    """[U] which of the D belongs to an n-gram of the targets."""
    context_at: NDArray[np.intp]
    """[U] which of the C."""


@dataclass(frozen=True)
class NgramCounts:
    """What the model needs to know of sources and targets."""

    singles: FloatArray
    """[S, D] frequency of each distinct token of the targets in a source."""
    single_at: NDArray[np.intp]
    """[U] which of the D is the last token of an n-gram of the targets."""
    levels: tuple[Level, ...]
    """By context length, from 1."""
    weights: FloatArray
    """[K, U] the n-gram's share of each target; rows sum to 1."""
    tokens: FloatArray
    """[S] tokens of the whole source."""
    counted: int
    """Tokens that were read of a source at most: the model cannot know more of it."""
    vocab_size: int


@dataclass(frozen=True)
class NgramLossModel:
    """The loss of every target as a function of the mixture."""

    counts: NgramCounts
    budget: float
    """In tokens."""
    repetitions: float = 15.0
    """Epochs beyond the first after which one more is worth 1/e of fresh text."""
    smoothing: tuple[float, ...] = NGRAM_SMOOTHING
    """a_n by context length; at least as many as there are levels."""
    read: FloatArray | None = None
    """[S] tokens of each source that were read before the budget begins; None for none."""
    context_lengths: tuple[int, ...] | None = None
    """[K] n of each target, from 1; None for the longest of all."""

    @property
    def longest(self) -> int:
        """Of the contexts that were counted, in tokens."""
        return len(self.counts.levels)

    @property
    def lengths(self) -> tuple[int, ...]:
        """[K] n of each target."""
        return self.context_lengths or (self.longest,) * len(self.counts.weights)

    def losses(self, mixture: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Nats per token of every target, and the derivatives with respect to the mixture.

        Epochs are counted at the budget itself, but no more tokens are taken for known than were
        read.

        Args:
            mixture: [S] not negative; need not sum to 1.

        Returns:
            [K] losses and [K, S] derivatives.
        """
        counts = self.counts
        steps, singles, total = self._upwards(mixture)
        losses = np.empty(len(counts.weights))
        slopes = np.empty((len(losses), len(mixture)))
        for target, (shares, length) in enumerate(zip(counts.weights, self.lengths, strict=True)):
            probability = steps[length - 1][-1]
            losses[target] = -float(shares @ np.log(probability))
            slopes[target] = self._slope(shares / probability, steps[:length], singles, total)
        epochs, share = self._epochs(mixture)
        return losses, slopes * self.budget * share * worth_of_epochs(epochs, self.repetitions)

    def ngram_losses(self, mixture: FloatArray) -> FloatArray:
        """[longest, U] -log p_n of every n-gram of the targets, in nats, by n from 1."""
        steps, _, _ = self._upwards(mixture)
        return np.stack([-np.log(step[-1]) for step in steps])

    def _epochs(self, mixture: FloatArray) -> tuple[FloatArray, float]:
        """[S] of the sources at the budget's end, and the share of all tokens that counts."""
        read = np.zeros_like(mixture) if self.read is None else self.read
        whole = self.budget + float(read.sum())
        epochs = (read + self.budget * mixture) / self.counts.tokens
        return epochs, min(whole, self.counts.counted) / whole

    def _upwards(
        self, mixture: FloatArray
    ) -> tuple[list[tuple[Level, float, FloatArray, FloatArray]], FloatArray, float]:
        """p_n of every n-gram, level by level.

        Returns:
            Of every level: itself, a_n, what its step divided by [U], p_n [U]; then p_0 [D] and
            what it was divided by.
        """
        counts = self.counts
        epochs, share = self._epochs(mixture)
        used = fresh_epochs(epochs, self.repetitions) * counts.tokens * share  # [S]
        total = float(used.sum()) + counts.vocab_size
        singles = np.asarray((used @ counts.singles + 1.0) / total)
        probability = singles[counts.single_at]
        steps = []
        for level, weight in zip(counts.levels, self.smoothing, strict=False):
            together = (level.followed.T @ used)[level.followed_at]
            below = (level.contexts.T @ used)[level.context_at] + weight
            probability = (together + weight * probability) / below
            steps.append((level, weight, below, probability))
        return steps, singles, total

    def _slope(
        self,
        sensitivity: FloatArray,
        steps: list[tuple[Level, float, FloatArray, FloatArray]],
        singles: FloatArray,
        total: float,
    ) -> FloatArray:
        """[S] derivatives of one target's loss by the tokens used, level by level downwards.

        Args:
            sensitivity: [U] minus the derivative of the loss by p_n.
            steps: of the levels, upwards: level, a_n, denominator [U], p_n [U].
            singles: [D] p_0.
            total: what p_0 is divided by.
        """
        found = np.zeros(len(self.counts.tokens))
        for level, weight, below, probability in reversed(steps):
            scaled = sensitivity / below
            together = np.bincount(level.followed_at, scaled, level.followed.shape[1])
            alone = np.bincount(level.context_at, scaled * probability, level.contexts.shape[1])
            found -= level.followed @ together - level.contexts @ alone
            sensitivity = weight * scaled
        last = np.bincount(self.counts.single_at, sensitivity, len(singles))
        found -= (self.counts.singles @ last - last @ singles) / total
        return found

    def with_contexts(self, longest: int) -> NgramLossModel:
        """The same with contexts of at most so many tokens."""
        counts = replace(self.counts, levels=self.counts.levels[:longest])
        lengths = tuple(min(length, longest) for length in self.lengths)
        smoothing = self.smoothing[:longest]
        return replace(self, counts=counts, smoothing=smoothing, context_lengths=lengths)

    def as_strong_as(
        self, losses: FloatArray, mixture: FloatArray, tokens: float
    ) -> NgramLossModel:
        """With the shortest contexts, of each target, that lose no more than a trained model.

        Args:
            losses: [K] the model's; not finite or not positive where none is known, which means the
                longest contexts.
            mixture: [S] that it was trained on.
            tokens: that it was trained on: n-grams are compared with it at its own budget.
        """
        enough = self.losses_by_length(mixture, tokens) <= np.where(
            np.isfinite(losses), losses, 0.0
        )
        lengths = np.where(enough.any(axis=0), np.argmax(enough, axis=0) + 1, self.longest)
        return replace(self, context_lengths=tuple(lengths.tolist()))

    def losses_by_length(self, mixture: FloatArray, tokens: float) -> FloatArray:
        """[longest, K] of contexts of 1, 2, ... tokens, after a budget of so many tokens."""
        found = replace(self, budget=tokens).ngram_losses(mixture) @ self.counts.weights.T
        return np.asarray(found)

    def fitted(self, mixture: FloatArray, target_weights: FloatArray) -> NgramLossModel:
        """With the smoothing that loses least on the targets at a mixture.

        Coordinate descent over factors of 2; the optimum is flat.

        Args:
            mixture: [S] at which the loss is least.
            target_weights: [K] shares of the targets; they need not sum to 1.
        """
        model = replace(self, smoothing=self.smoothing[: len(self.counts.levels)])

        def loss(smoothing: Sequence[float]) -> float:
            found, _ = replace(model, smoothing=tuple(smoothing)).losses(mixture)
            return float(target_weights @ found)

        best = list(model.smoothing)
        least = loss(best)
        moved = True
        while moved:
            moved = False
            for place in range(len(best)):
                for factor in (2.0, 0.5):
                    tried = [*best[:place], best[place] * factor, *best[place + 1 :]]
                    value = loss(tried)
                    if value < least - 1e-6 and 0.01 < tried[place] < 1e6:
                        best, least, moved = tried, value, True
        return replace(model, smoothing=tuple(best))


def count_ngrams(
    sources: Sequence[Tokens],
    targets: Sequence[Tokens],
    longest: int,
    vocab_size: int,
    whole_tokens: FloatArray,
) -> NgramCounts:
    """Frequencies in the sources of the targets' n-grams.

    Contexts do not reach over the start of a sequence: there they are shorter.

    Args:
        sources: [n, s + 1] sequences each.
        targets: [n, s + 1] sequences each.
        longest: tokens of the longest context, at least 1.
        vocab_size: tokens are below it.
        whole_tokens: [S] of the whole sources, of which the sequences are a sample.
    """
    every = [_keys(target, longest, vocab_size) for target in targets]
    first, weights = _distinct(every)

    # What to count: of every n-gram its last token, its contexts, and these with the last token.
    nexts = np.concatenate([each for _, each in every])[first]
    wanted = []
    for length in range(longest):
        contexts = np.concatenate([each[length] for each, _ in every])[first]
        wanted.append(
            (
                *np.unique(_with_next(contexts, nexts), return_inverse=True),
                *np.unique(contexts, return_inverse=True),
            )
        )
    distinct, single_at = np.unique(nexts, return_inverse=True)

    # Each source gives one row to every table of frequencies.
    rows: list[list[tuple[csr_array, csr_array]]] = [[] for _ in range(longest)]
    singles = np.empty((len(sources), len(distinct)))
    for number, source in enumerate(told(sources, "counting in sources")):
        contexts_of, following = _keys(source, longest, vocab_size)
        frequency = np.bincount(following, minlength=vocab_size) / len(following)
        singles[number] = frequency[distinct]
        for length, (together, _, alone, _) in enumerate(wanted):
            found = contexts_of[length]
            rows[length].append(
                (_frequencies(_with_next(found, following), together), _frequencies(found, alone))
            )

    levels = tuple(
        Level(
            csr_array(vstack([each[0] for each in row])),
            csr_array(vstack([each[1] for each in row])),
            together_at,
            alone_at,
        )
        for row, (_, together_at, _, alone_at) in zip(rows, wanted, strict=True)
    )
    counted = max(source[:, 1:].size for source in sources)
    return NgramCounts(singles, single_at, levels, weights, whole_tokens, counted, vocab_size)


def _distinct(targets: Sequence[tuple[list[Keys], Tokens]]) -> tuple[NDArray[np.intp], FloatArray]:
    """The targets' distinct n-grams, of the longest contexts.

    Args:
        targets: contexts and tokens of each, by `_keys`.

    Returns:
        [U] where each n-gram is first among all targets' tokens, and [K, U] its share of each.
    """
    whole = np.concatenate([_with_next(contexts[-1], nexts) for contexts, nexts in targets])
    _, first, places = np.unique(whole, return_index=True, return_inverse=True)
    weights = np.zeros((len(targets), len(first)))
    start = 0
    for number, (_, nexts) in enumerate(targets):
        own = places[start : start + len(nexts)]
        weights[number] = np.bincount(own, minlength=len(first)) / len(nexts)
        start += len(nexts)
    return first, weights


def read_counts(
    sources: Sequence[Source], targets: Sequence[Source], vocab_size: int, longest: int
) -> NgramCounts:
    """Read a sample of the sources and the targets, and count.

    Args:
        sources: opened; text.
        targets: opened; text.
        vocab_size: of the tokenizer.
        longest: tokens of the longest context, at least 1.

    Raises:
        UserError: if one holds conversations, or no sequence at all.
    """
    counted = tokens_per_source(len(sources))
    of_target = NGRAM_TARGET_TOKENS // len(targets)
    return count_ngrams(
        [read_sequences(source, counted, 1) for source in told(sources, "reading sources")],
        [read_sequences(target, of_target, 1) for target in targets],
        longest,
        vocab_size,
        np.array([source.num_tokens for source in sources], np.float64),
    )


def _keys(sequences: Tokens, longest: int, vocab_size: int) -> tuple[list[Keys], Tokens]:
    """Per context length a number for the context of every token, and the tokens themselves.

    Two contexts have the same number with a probability of 2^-64.
    """
    rows, size = sequences.shape
    before = np.full((rows, longest), vocab_size, np.int64)
    padded = np.concatenate((before, sequences), axis=1).astype(np.uint64)
    contexts, keys = [], np.zeros((rows, size - 1), np.uint64)
    for back in range(1, longest + 1):
        start = longest + 1 - back
        keys = _mixed(keys * _MULTIPLIER + padded[:, start : start + size - 1] + np.uint64(1))
        contexts.append(keys.ravel())
    return contexts, sequences[:, 1:].ravel()


def _with_next(contexts: Keys, nexts: Tokens) -> Keys:
    return _mixed(
        (contexts ^ np.uint64(0x5851F42D4C957F2D)) * _MULTIPLIER + nexts.astype(np.uint64)
    )


def _mixed(keys: Keys) -> Keys:
    """A bijection that spreads every bit over the number (SplitMix64; Steele et al., 2014)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _frequencies(keys: Keys, wanted: Keys) -> csr_array:
    """[1, D] the share of the keys that are each of the sorted, distinct wanted ones."""
    seen, counts = np.unique(keys, return_counts=True)
    return sparse_row(seen, counts / len(keys), wanted)
