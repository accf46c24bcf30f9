"""The law of token pairs against a plain count, differences and a general solver; the search that
begins with it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import yaml
from fastmix_mega.methods.start import begins_with_token_pairs, search_start, token_pairs
from hypothesis import given
from hypothesis import strategies as st

from fastmix_mega.arrays import FloatArray
from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import parse_config
from fastmix_mega.data.inputs import open_inputs
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.bigram import (
    SMOOTHING,
    PairCounts,
    count_pairs,
    law_loss,
    least_loss,
    read_within_reason,
)
from fastmix_mega.mixture.file import read_mixture
from fastmix_mega.mixture.simplex import MOST_EPOCHS, fresh_epochs, worth_of_epochs
from tests.launch import run_config

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
    """Sources with token laws of their own."""
    random = np.random.default_rng(seed)
    laws = random.dirichlet(np.full(VOCABULARY, 0.4), len(numbers))
    return [
        Text(random.choice(VOCABULARY, (number, 9), p=law))
        for number, law in zip(numbers, laws, strict=True)
    ]


def counted(seed: int) -> tuple[PairCounts, list[Any], list[Any]]:
    sources, targets = texts(seed, [40, 12, 3]), texts(seed + 100, [10, 20])
    return count_pairs(sources, targets, np.array([0.7, 0.3]), VOCABULARY), sources, targets


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
                known = pairs[first, second] + SMOOTHING * single
                loss -= share / target.num_tokens * np.log(known / (firsts[first] + SMOOTHING))
    return float(loss)


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_the_plain_count_and_the_gradient_its_derivative(seed: int) -> None:
    counts, sources, targets = counted(seed)
    mixture = np.random.default_rng(seed).dirichlet(np.ones(3))
    loss, gradient = law_loss(mixture, counts, BUDGET, REPETITIONS)
    assert loss == pytest.approx(plain_loss(mixture, sources, targets), rel=1e-12)
    for number in range(3):
        moved = np.eye(3)[number] * 1e-6
        plus, minus = (
            law_loss(mixture + sign * moved, counts, BUDGET, REPETITIONS)[0] for sign in (1, -1)
        )
        assert gradient[number] == pytest.approx((plus - minus) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_the_least_loss_is_a_general_solvers(seed: int) -> None:
    counts, *_ = counted(seed)
    best = min(
        (
            scipy.optimize.minimize(
                lambda row: law_loss(row, counts, BUDGET, REPETITIONS),
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
    assert law_loss(found, counts, BUDGET, REPETITIONS)[0] <= best.fun + 1e-5


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
def test_no_source_is_read_too_often(rows: list[tuple[float, int]], budget: float) -> None:
    shares, tokens = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    mixture = shares / shares.sum()
    found = read_within_reason(mixture, tokens, budget)
    readings = budget * found / tokens
    assert found.sum() == pytest.approx(1)
    limit = max(MOST_EPOCHS, 2 * budget / tokens.sum())
    assert (readings <= limit * (1 + 1e-9)).all()
    # Sources below the limit keep their ratios, and none loses to one that must give way.
    free = (readings < limit * (1 - 1e-9)) & (mixture > 1e-12)
    if free.any():
        ratios = found[free] / mixture[free]
        assert ratios == pytest.approx(ratios[0])
        assert ratios[0] >= 1 - 1e-9
    if (budget * mixture / tokens <= limit).all():
        assert found == pytest.approx(mixture)


def test_when_the_search_begins_with_them(settings: dict[str, Any], chats: dict[str, Any]) -> None:
    def begins(given: dict[str, Any]) -> bool:
        config = parse_config(given)
        inputs = open_inputs(config)
        return begins_with_token_pairs(config, inputs.sources, inputs.targets)

    def with_initial(given: dict[str, Any], initial: str, **more: Any) -> dict[str, Any]:
        return given | {"search": given["search"] | {"initial": initial}} | more

    assert begins(with_initial(settings, "auto"))
    assert begins(with_initial(settings, "token_pairs"))
    assert not begins(with_initial(settings, "uniform"))
    assert not begins(with_initial(settings, "auto", method="reference"))
    assert not begins(with_initial(chats, "auto"))
    with pytest.raises(UserError, match="conversations"):
        begins(with_initial(chats, "token_pairs"))
    with pytest.raises(UserError, match="method: fastmix"):
        begins(with_initial(settings, "token_pairs", method="odm"))


def test_limits_hold_for_the_first_mixture(settings: dict[str, Any]) -> None:
    settings["search"] |= {
        "initial": "token_pairs",
        "constraints": {"sources": {"beta": {"max": 0.3}}},
    }
    config = parse_config(settings)
    inputs = open_inputs(config)
    pairs = token_pairs(config, inputs)
    beta = config.source_names.index("beta")
    assert pairs[beta] > 0.3
    start = search_start(config, inputs.sources, inputs.tokenizer.sha256, pairs)
    assert start.initial[beta] == pytest.approx(0.3)
    assert start.from_pairs


@pytest.mark.distributed
def test_a_search_on_two_processes_begins_with_them(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings["search"] |= {"initial": "auto", "warmup": None}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert cli.main(["check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "token pairs" in shown
    assert "3 outer steps, the first after step 12 of 24" in shown
    assert cli.main(["check", str(path), "train.steps=6"]) == 2
    assert "train at least 8 steps" in capsys.readouterr().out
    assert cli.main(["check", str(path), "train.steps=8"]) == 0
    assert cli.main(["check", str(path), "search.initial=uniform"]) == 2
    assert "train at least 28 steps" in capsys.readouterr().out

    config = parse_config(settings)
    inputs = open_inputs(config)
    wanted = token_pairs(config, inputs)
    run = run_config("search", settings, tmp_path / "run", processes=2)
    mixture = read_mixture(run / "mixture.json")
    begun = mixture.search["first_mixture"]
    np.testing.assert_allclose([begun[name] for name in config.source_names], wanted)
    first = json.loads((run / "history.jsonl").read_text().splitlines()[0])
    # Nothing is scored before the last half.
    assert first["step"] == config.train.steps // 2 + config.search.every
    # The law that the first window was drawn from: half of it is uniform.
    np.testing.assert_allclose(first["sampling"], 0.5 * wanted + 0.5 / len(wanted), rtol=1e-12)
