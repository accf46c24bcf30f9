"""The mathematics of the mixture on the simplex: pure functions over float64 arrays [S]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray

MOST_EPOCHS = 8.0
"""Of a source. n-grams that are read again count as known better, and scores see only the next
steps; a model also memorises the text, and a small source at 24 epochs cost 1.4 nats
(research/bigram_regime.md)."""

FLOOR = 0.02
"""Share of the even mixture in every answer."""


def softmax(logits: FloatArray) -> FloatArray:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def floored(mixture: FloatArray) -> FloatArray:
    """With `FLOOR` of the even mixture in it: a source that the evidence rules out can still be
    worth something."""
    return (1 - FLOOR) * mixture + FLOOR / len(mixture)


def entropy(mixture: FloatArray) -> float:
    """Shannon entropy in nats."""
    positive = mixture[mixture > 0]
    return float(-(positive * np.log(positive)).sum()) + 0.0


def effective_sources(mixture: FloatArray) -> float:
    """exp(entropy): how many equally weighted sources would be as spread out."""
    return float(np.exp(entropy(mixture)))


def sampling_distribution(
    mixture: FloatArray, exploration: float, explored: FloatArray | None = None
) -> FloatArray:
    """q = (1 - e) * mixture + e * explored; exactly the mixture for e = 0.

    Args:
        mixture: [S]
        exploration: e.
        explored: [S] uniform by default.
    """
    if exploration == 0:
        return mixture
    if explored is None:
        return (1 - exploration) * mixture + exploration / len(mixture)
    return (1 - exploration) * mixture + exploration * explored


def loss_weights(mixture: FloatArray, distribution: FloatArray) -> FloatArray:
    """mixture / q: what makes sampling from q have the mixture's expected gradient.

    A source that is never drawn has no weight to give.
    """
    return np.divide(mixture, distribution, out=np.zeros_like(mixture), where=distribution > 0)


def worth_of_epochs(epochs: FloatArray, repetitions: float) -> FloatArray:
    """What one more token is worth of a source that is read so often: 1 for fresh text, then fading
    with exp(-(epochs - 1) / repetitions) (Muennighoff et al., 2023, arXiv 2305.16264, eq. 5).

    Args:
        epochs: [S] not negative.
        repetitions: their R*, about 15.
    """
    return np.exp(-np.maximum(epochs - 1, 0.0) / repetitions)


def fresh_epochs(epochs: FloatArray, repetitions: float) -> FloatArray:
    """[S] the epochs of fresh text that would be worth as much: the integral of the former."""
    return np.minimum(epochs, 1.0) + repetitions * (1 - worth_of_epochs(epochs, repetitions))


def most_epochs(epochs: FloatArray) -> float:
    """Of any source at the budget: `MOST_EPOCHS`, or twice as many as the budget must read where
    all sources together are too small for that.

    Args:
        epochs: [S] how often each source would be read if it were the only one.
    """
    return max(MOST_EPOCHS, 2 / float((1 / epochs).sum()))


def exponentiated_gradient(
    logits: FloatArray, scores: FloatArray, scale: float, step: float
) -> FloatArray:
    """z + step * (s - lambda . s) / scale, centred; lambda = softmax(z).

    Positive scores lower the target loss. `scale` is the running size of the scores' spread, so
    that `step` is in units of log-weight.
    """
    moved = logits + step * (scores - softmax(logits) @ scores) / scale
    return moved - moved.mean()


@dataclass(frozen=True)
class ScoreEstimate:
    """Mean score per source with its noise; sources never observed have count 0."""

    mean: FloatArray
    """[S] 0 where nothing was observed."""
    standard_error: FloatArray
    """[S] of the mean; 0 where fewer than two observations were made."""


@dataclass(frozen=True)
class DecayedSums:
    """Score sums over past outer steps, the older ones faded: N <- decay * N + new.

    All fields are [S]. `weight` is the faded sum of the observations' weights and `weight_squared`
    the faded sum of their squares, from which the mean's variance follows.
    """

    total: FloatArray
    square: FloatArray
    weight: FloatArray
    weight_squared: FloatArray

    @classmethod
    def zeros(cls, *shape: int) -> DecayedSums:
        return cls(*np.zeros((4, *shape)))

    @property
    def stacked(self) -> FloatArray:
        """[4, S], from which `DecayedSums(*stacked)` is made again."""
        return np.stack((self.total, self.square, self.weight, self.weight_squared))

    def add(self, sums: FloatArray, decay: float) -> DecayedSums:
        """Fade and add one window's [4, S]: sums of w x, w x^2, w and w^2 over observations x of
        weights w."""
        total, square, weight, weight_squared = sums
        return DecayedSums(
            total=decay * self.total + total,
            square=decay * self.square + square,
            weight=decay * self.weight + weight,
            weight_squared=decay**2 * self.weight_squared + weight_squared,
        )

    def estimate(self) -> ScoreEstimate:
        weight = np.maximum(self.weight, 1e-300)
        mean = np.where(self.weight > 0, self.total / weight, 0.0)
        return ScoreEstimate(mean, np.sqrt(self._variance(mean) * self.weight_squared) / weight)

    def observation_variance(self) -> FloatArray:
        """[S] variance of single observations."""
        return self._variance(np.where(self.weight > 0, self.total, 0) / np.maximum(self.weight, 1))

    def _variance(self, mean: FloatArray) -> FloatArray:
        second = np.where(self.weight > 0, self.square, 0) / np.maximum(self.weight, 1e-300)
        return np.maximum(second - mean**2, 0.0)


def effective_count(sums: FloatArray) -> FloatArray:
    """[S] as many observations of equal weight would tell as much (Kish); see `DecayedSums.add`."""
    weight, squared = sums[2], sums[3]
    return weight * np.divide(weight, squared, out=np.ones_like(weight), where=squared > 0)


def geometric_mean(log_mixtures: FloatArray) -> FloatArray:
    """Normalised geometric mean over the first axis of [K, S] log weights."""
    return softmax(log_mixtures.mean(axis=0))


def mixture_standard_error(mixture: FloatArray, logit_variance: FloatArray) -> FloatArray:
    """Standard errors of softmax weights from independent variances of the logits (delta method).

    d lambda_i = lambda_i (dz_i - sum_j lambda_j dz_j).
    """
    shared = (mixture**2 * logit_variance).sum()
    own = (1 - 2 * mixture) * logit_variance
    return mixture * np.sqrt(np.maximum(own + shared, 0.0))
