from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from fastmix_mega.arrays import FloatArray
from research.ngram_law import count_ngrams, ngram_loss

VOCABULARY = 7


def sequences(seed: int, rows: int = 6, size: int = 9) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, (rows, size))


def direct_loss(
    sources: Sequence[NDArray[np.int64]],
    target: NDArray[np.int64],
    used: FloatArray,
    concentrations: Sequence[float],
) -> float:
    """The law as its docstring has it, one token after another."""

    def frequency(source: NDArray[np.int64], context: list[int | None], token: int | None) -> float:
        hits = total = 0
        for row in source.tolist():
            for place in range(1, len(row)):
                total += 1
                before = [None] * len(context) + row[:place]
                if before[len(before) - len(context) :] == context and token in (None, row[place]):
                    hits += 1
        return hits / total

    def count(context: list[int | None], token: int | None) -> float:
        pairs = zip(sources, used, strict=True)
        return sum(tokens * frequency(source, context, token) for source, tokens in pairs)

    losses = []
    for row in target.tolist():
        for place in range(1, len(row)):
            probability = (count([], row[place]) + 1e-3) / sum(used)
            for length, weight in enumerate(concentrations, 1):
                before = [None] * length + row[:place]
                context = before[len(before) - length :]
                above = count(context, row[place]) + weight * probability
                probability = above / (count(context, None) + weight)
            losses.append(-math.log(probability))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("concentrations", [[5.0], [5.0, 2.0], [5.0, 2.0, 1.0]])
def test_loss_is_that_of_the_law_token_by_token(concentrations: list[float]) -> None:
    sources, target = [sequences(1), sequences(2, 4)], sequences(3, 3)
    used = np.array([40.0, 25.0])
    counts = count_ngrams(sources, target, 3, VOCABULARY)
    found, _ = ngram_loss(used, counts, concentrations)
    assert found == pytest.approx(direct_loss(sources, target, used, concentrations), abs=1e-12)


def test_gradient_is_that_of_the_loss() -> None:
    sources, target = [sequences(4), sequences(5), sequences(6)], sequences(7)
    counts = count_ngrams(sources, target, 3, VOCABULARY)
    used, weights = np.array([30.0, 10.0, 50.0]), [4.0, 2.0, 1.0]
    _, gradient = ngram_loss(used, counts, weights)
    for place in range(3):
        moved = np.eye(3)[place] * 1e-4
        above, _ = ngram_loss(used + moved, counts, weights)
        below, _ = ngram_loss(used - moved, counts, weights)
        assert gradient[place] == pytest.approx((above - below) / 2e-4, rel=1e-5, abs=1e-9)
