"""Subsets of sources: exact, the same for every seed, repeated as the large run repeats them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmix_mega.configuration import parse_config
from fastmix_mega.data.order import SampleOrder, subset_size
from fastmix_mega.data.repetition import proxy_share, repetition_notes
from fastmix_mega.data.run_inputs import open_inputs
from fastmix_mega.errors import UserError
from fastmix_mega.files import read_jsonl
from tests.launch import run_config

SAMPLES = 318
"""Of each tiny source: 5,100 tokens in sequences of 16."""


def matched(settings: dict[str, Any], budget: int, **more: Any) -> Any:
    search = settings.get("search", {}) | {
        "match_repetition": True,
        "constraints": {"budget_tokens": budget},
    }
    return parse_config(settings | {"search": search} | more)


@given(
    st.integers(1, 400), st.integers(0, 50), st.floats(0.001, 1), st.integers(0, 5), st.text("ab")
)
def test_an_epoch_is_the_same_subset_for_every_seed(
    whole: int, holdout: int, share: float, seed: int, name: str
) -> None:
    if holdout >= whole:
        return
    order = SampleOrder(name, seed, whole, holdout, held_out=False).subset(share)
    size = order.num_samples
    assert size == subset_size(whole - holdout, share)
    first = order.places(np.arange(size))
    assert len(set(first)) == size
    assert 0 <= first.min() <= first.max() < whole - holdout
    # The next epoch, and another seed's, are the same samples in another order.
    assert set(order.places(np.arange(size, 2 * size))) == set(first)
    other = SampleOrder(name, seed + 1, whole, holdout, held_out=False).subset(share)
    assert set(other.places(np.arange(size))) == set(first)


def test_a_whole_source_is_read_as_before() -> None:
    plain = SampleOrder("a", 1, 100, 10, held_out=False)
    whole = SampleOrder("a", 1, 100, 10, held_out=False).subset(1.0)
    assert (plain.places(np.arange(300)) == whole.places(np.arange(300))).all()


def test_subsets_are_no_prefix() -> None:
    """The first part of a file may be of one kind."""
    places = SampleOrder("a", 1, 1000, 0, held_out=False).subset(0.1).places(np.arange(100))
    assert places.max() > 900


def test_the_proxy_repeats_as_the_large_run_would(settings: dict[str, Any]) -> None:
    tokens = parse_config(settings).train.tokens
    config = matched(settings, 4 * tokens)
    share = proxy_share(config, "search")
    assert share == 0.25
    inputs = open_inputs(config, share)
    assert [source.num_samples for source in inputs.sources] == [round(SAMPLES / 4)] * 4
    # Targets are whole.
    assert inputs.targets[0].num_samples == open_inputs(config).targets[0].num_samples
    assert proxy_share(config, "train") == 1.0
    assert proxy_share(parse_config(settings), "search") == 1.0


def test_what_check_says(settings: dict[str, Any]) -> None:
    tokens = parse_config(settings).train.tokens
    facts, warnings = repetition_notes(matched(settings, 4 * tokens), [SAMPLES] * 4)
    assert (facts, warnings) == (
        ["every source is cut to 25.000%, as the large run would repeat it"],
        [],
    )
    _, warnings = repetition_notes(matched(settings, 100 * tokens), [SAMPLES] * 4)
    assert "alpha (3), beta (3)" in warnings[0]
    _, warnings = repetition_notes(matched(settings, tokens), [SAMPLES] * 4)
    assert "changes nothing" in warnings[0]
    assert repetition_notes(parse_config(settings), [SAMPLES] * 4) == ([], [])


def test_it_needs_a_budget(settings: dict[str, Any]) -> None:
    search = settings.get("search", {}) | {"match_repetition": True}
    with pytest.raises(UserError, match=r"needs search\.constraints\.budget_tokens"):
        parse_config(settings | {"search": search})


def test_a_search_reads_only_the_subset(settings: dict[str, Any], tmp_path: Path) -> None:
    """Through the real search: with one sequence of each source left, they are learned by heart."""
    tokens = parse_config(settings).train.tokens
    losses = {}
    for name, budget in (("whole", tokens), ("cut", 1000 * tokens)):
        config = matched(settings, budget).model_dump(mode="json")
        run = run_config("search", config, tmp_path / name)
        losses[name] = read_jsonl(run / "metrics.jsonl")[-1]["loss"]
    assert losses["cut"] < losses["whole"] - 0.1
