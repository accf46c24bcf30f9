"""`method: ngram`, or `fastmix ngram`: the mixture whose bigrams look most like the target's.

The control that every search must beat: no model is trained. Each source is a distribution over
bigrams, a mixture of sources is the mixture of these, and the target's log-likelihood under it is
concave in the shares: the best one is found exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.base import Section, TokenCount
from fastmix_mega.data.run_inputs import Inputs
from fastmix_mega.methods.base import target_weights
from fastmix_mega.methods.untrained import UntrainedMethod
from fastmix_mega.mixture.bigram import bigram_keys, weighted_bigrams
from fastmix_mega.mixture.counting import Tokens, read_sequences

MOST_ITERATIONS = 20_000


class NgramSection(Section):
    """`method: ngram` only: a mixture from bigrams."""

    tokens: TokenCount = 4_000_000
    """Tokens that are read of each source, at most."""


class Ngram(UntrainedMethod):
    """See the module's docstring."""

    name = "ngram"
    Settings = NgramSection
    needs_targets = True
    free_sections = ("ngram",)

    def weights(self, inputs: Inputs) -> tuple[FloatArray, list[str]]:
        fit = self.fit(inputs)
        warnings = []
        if fit.gap > 1e-4:
            warnings.append(f"The fit ended {fit.gap:.2g} nats per pair from the best one at most.")
        return fit.shares, warnings

    def fit(self, inputs: Inputs) -> Fit:
        """The mixture of the sources, from at most `ngram.tokens` tokens of each.

        Raises:
            UserError: if a source or a target is too short for two sequences.
        """
        vocab_size, tokens = inputs.tokenizer.vocab_size, self.settings.tokens
        targets = [
            bigram_keys(read_sequences(each, tokens, 2), vocab_size) for each in inputs.targets
        ]
        keys, weights = weighted_bigrams(targets, target_weights(self.given))
        likelihoods = np.stack(
            [
                source_likelihoods(read_sequences(source, tokens, 2), keys, vocab_size)
                for source in inputs.sources
            ],
            axis=1,
        )  # [P, S]
        return fit_mixture(likelihoods, weights)


@dataclass(frozen=True)
class Fit:
    shares: FloatArray
    """[S], on the simplex."""
    gap: float
    """Nats per pair by which the best mixture can be better at most."""


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


def source_likelihoods(sequences: Tokens, keys: Tokens, vocab_size: int) -> FloatArray:
    """[P] probability of each bigram in a source: its own bigrams, smoothed by single tokens.

    P(x, y) = a * bigrams(x, y) + (1 - a) * u(x) * u(y), with u add-one smoothed. Half of the
    sequences give the counts; the other half gives a, by maximum likelihood.

    Args:
        sequences: [n, s + 1] tokens, n >= 2.
        keys: [P] sorted bigrams, first * vocab_size + second.
        vocab_size: of the tokenizer.
    """
    counted, judged = sequences[0::2], sequences[1::2]
    tokens = np.bincount(counted.ravel(), minlength=vocab_size).astype(np.float64) + 1
    singles: FloatArray = tokens / tokens.sum()
    seen, counts = np.unique(bigram_keys(counted, vocab_size), return_counts=True)
    frequencies = counts / counts.sum()
    # Each bigram of the other half, with the number of times that it stands there.
    other, times = np.unique(bigram_keys(judged, vocab_size), return_counts=True)
    columns = np.stack(
        (_look_up(other, seen, frequencies), _independent(other, singles, vocab_size)), axis=1
    )
    share = fit_mixture(columns, times / times.sum()).shares[0]
    joint = _look_up(keys, seen, frequencies)
    found: FloatArray = share * joint + (1 - share) * _independent(keys, singles, vocab_size)
    # A source that repeats itself word for word needs no smoothing; zero would rule it out.
    return np.maximum(found, np.finfo(np.float64).tiny)


def _independent(keys: Tokens, singles: FloatArray, vocab_size: int) -> FloatArray:
    product: FloatArray = singles[keys // vocab_size] * singles[keys % vocab_size]
    return product


def _look_up(keys: Tokens, seen: Tokens, frequencies: FloatArray) -> FloatArray:
    """[P] frequencies of keys, 0 for those not among the sorted `seen`."""
    places = np.minimum(np.searchsorted(seen, keys), len(seen) - 1)
    return np.where(seen[places] == keys, frequencies[places], 0.0)
