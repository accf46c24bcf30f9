"""The bigram loss model against a plain count, differences and a general solver."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from fastmix_mega.arrays import FloatArray
from fastmix_mega.mixture.bigram import (
    BIGRAM_SMOOTHING,
    BigramCounts,
    bigram_loss,
    count_bigrams,
    least_loss,
    within_most_epochs,
)
from fastmix_mega.mixture.simplex import MOST_EPOCHS, fresh_epochs, worth_of_epochs

VOCABULARY = 12
BUDGET, REPETITIONS = 700.0, 4.0


@dataclass
class Text:
    """Sequences in memory, as a source."""

    sequences: np.ndarray
    name: str = "text"
    masked: bool = False
    choices: int = 1
    files: list[Any] = field(default_factory=list)

    @property
    def seq_length(self) -> int:
        return int(self.sequences.shape[1]) - 1

    @property
    def num_samples(self) -> int:
        return len(self.sequences)

    @property
    def num_tokens(self) -> int:
        return self.num_samples * self.seq_length

    def samples(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray(self.sequences[indices])


def texts(seed: int, numbers: list[int]) -> list[Any]:
    """Sources with token distributions of their own."""
    random = np.random.default_rng(seed)
    distributions = random.dirichlet(np.full(VOCABULARY, 0.4), len(numbers))
    return [
        Text(random.choice(VOCABULARY, (number, 9), p=distribution))
        for number, distribution in zip(numbers, distributions, strict=True)
    ]


def counted(seed: int) -> tuple[BigramCounts, list[Any], list[Any]]:
    sources, targets = texts(seed, [40, 12, 3]), texts(seed + 100, [10, 20])
    return count_bigrams(sources, targets, np.array([0.7, 0.3]), VOCABULARY), sources, targets


def plain_loss(mixture: FloatArray, sources: list[Any], targets: list[Any]) -> float:
    """The formula of the module's first lines, pair by pair."""
    pairs: Counter[tuple[int, int]] = Counter()
    firsts: Counter[int] = Counter()
    seconds: Counter[int] = Counter()
    for share, source in zip(mixture, sources, strict=True):
        epochs = BUDGET * share / source.num_tokens
        beyond = max(epochs - 1, 0.0)
        fresh = min(epochs, 1.0) + REPETITIONS * (1 - np.exp(-beyond / REPETITIONS))
        for row in source.sequences.tolist():
            for first, second in itertools.pairwise(row):
                pairs[first, second] += fresh
                firsts[first] += fresh
                seconds[second] += fresh
    total = sum(seconds.values()) + VOCABULARY
    loss = 0.0
    for share, target in zip((0.7, 0.3), targets, strict=True):
        for row in target.sequences.tolist():
            for first, second in itertools.pairwise(row):
                single = (seconds[second] + 1) / total
                known = pairs[first, second] + BIGRAM_SMOOTHING * single
                loss -= (
                    share / target.num_tokens * np.log(known / (firsts[first] + BIGRAM_SMOOTHING))
                )
    return float(loss)


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_the_plain_count_and_the_gradient_its_derivative(seed: int) -> None:
    counts, sources, targets = counted(seed)
    mixture = np.random.default_rng(seed).dirichlet(np.ones(3))
    loss, gradient = bigram_loss(mixture, counts, BUDGET, REPETITIONS)
    assert loss == pytest.approx(plain_loss(mixture, sources, targets), rel=1e-12)
    for number in range(3):
        moved = np.eye(3)[number] * 1e-6
        plus, minus = (
            bigram_loss(mixture + sign * moved, counts, BUDGET, REPETITIONS)[0] for sign in (1, -1)
        )
        assert gradient[number] == pytest.approx((plus - minus) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_the_least_loss_is_a_general_solvers(seed: int) -> None:
    counts, *_ = counted(seed)
    best = min(
        (
            scipy.optimize.minimize(
                lambda row: bigram_loss(row, counts, BUDGET, REPETITIONS),
                start,
                jac=True,
                method="SLSQP",
                bounds=[(0, 1)] * 3,
                constraints={"type": "eq", "fun": lambda row: row.sum() - 1},
                options={"ftol": 1e-12},
            )
            for start in (np.full(3, 1 / 3), *(0.1 + 0.7 * np.eye(3)))
        ),
        key=lambda found: found.fun,
    )
    found = least_loss(counts, BUDGET, REPETITIONS)
    assert found.sum() == pytest.approx(1)
    assert bigram_loss(found, counts, BUDGET, REPETITIONS)[0] <= best.fun + 1e-5


@given(st.floats(0, 200), st.floats(0.5, 50))
def test_fresh_epochs_are_the_integral_of_what_one_more_is_worth(
    epochs: float, repetitions: float
) -> None:
    grid = np.linspace(0, epochs, 20_001)
    integral = np.trapezoid(worth_of_epochs(grid, repetitions), grid)
    assert fresh_epochs(np.array([epochs]), repetitions)[0] == pytest.approx(integral, abs=1e-3)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(50, 10**7)), min_size=2, max_size=8).filter(
        lambda rows: sum(share for share, _ in rows) > 0.01
    ),
    st.floats(100, 1e9),
)
def test_no_source_has_too_many_epochs(rows: list[tuple[float, int]], budget: float) -> None:
    shares, tokens = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    mixture = shares / shares.sum()
    found = within_most_epochs(mixture, tokens, budget)
    epochs = budget * found / tokens
    assert found.sum() == pytest.approx(1)
    limit = max(MOST_EPOCHS, 2 * budget / tokens.sum())
    assert (epochs <= limit * (1 + 1e-9)).all()
    # Sources below the limit keep their ratios, and none loses to one that must give way.
    free = (epochs < limit * (1 - 1e-9)) & (mixture > 1e-12)
    if free.any():
        ratios = found[free] / mixture[free]
        assert ratios == pytest.approx(ratios[0])
        assert ratios[0] >= 1 - 1e-9
    if (budget * mixture / tokens <= limit).all():
        assert found == pytest.approx(mixture)
