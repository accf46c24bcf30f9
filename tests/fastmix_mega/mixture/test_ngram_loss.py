"""The n-gram loss model against a plain count, its gradient against differences."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fastmix_mega.mixture.ngram_loss import NgramLossModel, count_ngrams
from fastmix_mega.mixture.simplex import fresh_epochs

VOCABULARY = 12
SMOOTHING = (30.0, 10.0, 5.0)
WHOLE = np.array([4000.0, 500.0, 3000.0, 2000.0])
BUDGET = 3000.0


def sequences(random: np.random.Generator, count: int, skewed: bool = True) -> np.ndarray:
    """[count, 30] tokens, with n-grams that come back."""
    law = random.dirichlet(np.full(VOCABULARY, 0.3 if skewed else 5.0), size=VOCABULARY)
    rows = np.empty((count, 30), np.int64)
    for row in rows:
        row[0] = random.integers(VOCABULARY)
        for place in range(1, 30):
            row[place] = random.choice(VOCABULARY, p=law[row[place - 1]])
    return rows


def example() -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(0)
    sources = [sequences(random, 40) for _ in range(4)]
    return sources, [sequences(random, 10), sequences(random, 6, skewed=False)]


def model(sources: list[np.ndarray], targets: list[np.ndarray], longest: int) -> NgramLossModel:
    counts = count_ngrams(sources, targets, longest, VOCABULARY, WHOLE)
    return NgramLossModel(counts, BUDGET, 15.0, SMOOTHING[:longest])


def plain_losses(
    sources: list[np.ndarray], targets: list[np.ndarray], longest: int, mixture: np.ndarray
) -> list[float]:
    """The same by counting in dictionaries, token by token."""
    counted = min(BUDGET, max(source[:, 1:].size for source in sources))
    used = fresh_epochs(BUDGET * mixture / WHOLE, 15.0) * WHOLE * counted / BUDGET
    tables: list[Counter[tuple[object, ...]]] = [Counter() for _ in range(longest + 1)]
    for source, tokens in zip(sources, used, strict=True):
        share = tokens / source[:, 1:].size
        for row in source.tolist():
            padded = [VOCABULARY] * longest + row
            for place in range(1, len(row)):
                tables[0][row[place],] += share
                for length in range(1, longest + 1):
                    context = tuple(padded[longest + place - length : longest + place])
                    tables[length][context, row[place]] += share
                    tables[length][context,] += share
    losses = []
    for target in targets:
        logs = []
        for row in target.tolist():
            padded = [VOCABULARY] * longest + row
            for place in range(1, len(row)):
                found = (tables[0][row[place],] + 1) / (used.sum() + VOCABULARY)
                for length in range(1, longest + 1):
                    context = tuple(padded[longest + place - length : longest + place])
                    weight = SMOOTHING[length - 1]
                    together = tables[length][context, row[place]]
                    found = (together + weight * found) / (tables[length][context,] + weight)
                logs.append(-math.log(found))
        losses.append(sum(logs) / len(logs))
    return losses


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_losses_are_those_of_a_plain_count(longest: int) -> None:
    sources, targets = example()
    mixture = np.array([0.5, 0.3, 0.0, 0.2])
    found, _ = model(sources, targets, longest).losses(mixture)
    np.testing.assert_allclose(found, plain_losses(sources, targets, longest, mixture), rtol=1e-12)


@pytest.mark.parametrize("longest", [1, 3])
def test_gradients_are_the_derivatives(longest: int) -> None:
    sources, targets = example()
    tried = model(sources, targets, longest)
    mixture = np.array([0.4, 0.35, 0.1, 0.15])  # The second source is read 2.1 times.
    _, gradients = tried.losses(mixture)
    for source in range(4):
        step = 1e-5 * np.eye(4)[source]
        above, below = tried.losses(mixture + step)[0], tried.losses(mixture - step)[0]
        np.testing.assert_allclose(gradients[:, source], (above - below) / 2e-5, rtol=1e-5)


def test_each_target_has_contexts_of_its_own_length() -> None:
    sources, targets = example()
    tried = replace(model(sources, targets, 3), context_lengths=(3, 1))
    mixture = np.array([0.4, 0.35, 0.1, 0.15])
    losses, gradients = tried.losses(mixture)
    for target, length in enumerate((3, 1)):
        alone = model(sources, targets, length).losses(mixture)
        assert losses[target] == pytest.approx(alone[0][target], rel=1e-12)
        np.testing.assert_allclose(gradients[target], alone[1][target], rtol=1e-12)
    assert tried.with_contexts(2).lengths == (2, 1)


def test_contexts_are_the_shortest_that_are_as_strong_as_the_model() -> None:
    sources, targets = example()
    whole, even = model(sources, targets, 3), np.full(4, 0.25)
    for target in range(2):
        by_length = [model(sources, targets, n).losses(even)[0][target] for n in (1, 2, 3)]
        for level in (*np.array(by_length) + 1e-9, *np.array(by_length) - 1e-9):
            enough = [n for n, loss in enumerate(by_length, 1) if loss <= level]
            losses = np.full(2, level)
            assert whole.as_strong_as(losses, even, BUDGET).lengths[target] == (enough or [3])[0]
    # At the model's own budget, whatever the n-grams are counted for.
    large, losses = replace(whole, budget=1e9), np.full(2, by_length[0] + 1e-9)
    assert large.as_strong_as(losses, even, BUDGET).lengths[1] == 1
    # A model that has learned next to nothing; one of which nothing is known.
    assert whole.as_strong_as(np.array([9.0, 0.0]), even, BUDGET).lengths == (1, 3)
    assert whole.as_strong_as(np.array([9.0, np.nan]), even, BUDGET).lengths == (1, 3)


def test_fitted_smoothing_loses_less_and_nothing_near_it_does() -> None:
    sources, targets = example()
    even, weights = np.full(4, 0.25), np.array([2.0, 1.0])
    given = model(sources, targets, 2)
    fitted = given.fitted(even, weights)
    least = weights @ fitted.losses(even)[0]
    assert least < weights @ given.losses(even)[0]
    for place in range(2):
        for factor in (2.0, 0.5):
            near = list(fitted.smoothing)
            near[place] *= factor
            other = replace(fitted, smoothing=tuple(near))
            # The targets are like no source here: as much smoothing as is allowed is best.
            assert near[place] > 9e5 or weights @ other.losses(even)[0] >= least - 1e-6


def test_longer_contexts_see_through_text_with_the_targets_bigrams() -> None:
    """Source 0 is drawn from the target's bigram frequencies; source 1 is text like the target."""
    random = np.random.default_rng(1)
    # Order 2: a token follows from the two before it.
    law = random.dirichlet(np.full(VOCABULARY, 0.1), size=(VOCABULARY, VOCABULARY))

    def text(count: int) -> np.ndarray:
        rows = random.integers(0, VOCABULARY, (count, 30))
        for row in rows:
            for place in range(2, 30):
                row[place] = random.choice(VOCABULARY, p=law[row[place - 2], row[place - 1]])
        return rows

    real = text(400)
    pairs = np.zeros((VOCABULARY, VOCABULARY)) + 1e-9
    np.add.at(pairs, (real[:, :-1].ravel(), real[:, 1:].ravel()), 1)
    pairs /= pairs.sum(axis=1, keepdims=True)
    drawn = random.integers(0, VOCABULARY, (120, 30))
    for row in drawn:
        for place in range(1, 30):
            row[place] = random.choice(VOCABULARY, p=pairs[row[place - 1]])
    target = text(100)
    whole = np.array([1e5, 1e5])

    def gap(longest: int) -> float:
        """By how much more of source 1 lowers the loss than more of source 0."""
        counts = count_ngrams([drawn, real[:120]], [target], longest, VOCABULARY, whole)
        tried = NgramLossModel(counts, 1e4, 15.0, (10.0, 10.0, 10.0)[:longest])
        _, gradients = tried.losses(np.array([0.5, 0.5]))
        return float(gradients[0, 0] - gradients[0, 1])

    assert abs(gap(1)) < 0.05
    assert gap(2) > 0.3
