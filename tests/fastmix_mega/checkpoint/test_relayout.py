"""A search that goes on with another layout of processes after its checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmix_mega.checkpoint.relayout import merge_states, place_of, split_state
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.model.initialize import shard, unshard
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout
from tests.launch import column, run_config

SEQUENCE = {"tensor": 2, "sequence": True}


@pytest.fixture
def layout() -> Iterator[Layout]:
    with parallel_layout.start(ParallelSection()) as started:
        yield started


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("before", "after", "tied_all"),
    [
        ((2, {}), (2, {"tensor": 2}), False),
        ((2, {"tensor": 2}), (1, {}), False),
        ((2, {"pipeline": 2}), (2, {}), False),
        ((4, SEQUENCE | {"pipeline": 2}), (2, {}), True),
        ((1, {}), (2, {"pipeline": 2}), True),
    ],
    ids=["DP2-TP2", "TP2-1", "PP2-DP2", "TP2xPP2-DP2 tied, all", "1-PP2 tied, all"],
)
def test_continues_the_same_trajectory(
    settings: dict[str, Any],
    tmp_path: Path,
    before: tuple[int, dict[str, Any]],
    after: tuple[int, dict[str, Any]],
    tied_all: bool,
) -> None:
    """From the middle of a window of scores, within 1e-5 of the uninterrupted run."""
    if tied_all:
        # Biases are cut by tensor parallelism, norms of heads are not.
        settings["model"] = {"preset": "tiny", "tie_embeddings": True}
        settings["model"] |= {"qkv_bias": True, "qk_norm": True}
        settings["search"]["scores"] = "all"
    settings["checkpoint"] = {"every": 5, "keep": 9}
    whole = run_config("search", settings | {"parallel": before[1]}, tmp_path / "whole", before[0])
    again = tmp_path / "again"
    shutil.copytree(whole, again / "run")
    for step in (20, 24):
        shutil.rmtree(again / "run" / "checkpoints" / f"step_{step}")
    for file in ("metrics.jsonl", "history.jsonl"):
        lines = (again / "run" / file).read_text().splitlines()
        kept = 15 if file == "metrics.jsonl" else 2
        (again / "run" / file).write_text("\n".join(lines[:kept]) + "\n")
    run_dir = run_config("search", settings | {"parallel": after[1]}, again, after[0])
    for file, key in (
        ("metrics.jsonl", "loss"),
        ("metrics.jsonl", "grad_norm"),
        ("history.jsonl", "scores"),
        ("history.jsonl", "target_scores"),
        ("history.jsonl", "mixture"),
    ):
        here, there = column(run_dir, file, key), column(whole, file, key)
        assert here.shape == there.shape
        assert np.abs(here - there).max() / np.abs(there).max() < 1e-5


@pytest.mark.parametrize(
    "name",
    [
        "decoder.layers.0.self_attention.linear_qkv.weight",
        "decoder.layers.0.self_attention.linear_proj.weight",
        "decoder.layers.0.mlp.linear_fc1.weight",
        "decoder.layers.0.mlp.linear_fc2.weight",
        "embedding.word_embeddings.weight",
    ],
)
def test_shards_come_together_again(name: str) -> None:
    full = torch.randn(16, 8)
    for size in (1, 2, 4):
        parts = [shard(name, full, rank, size) for rank in range(size)]
        assert torch.equal(unshard(name, parts), full)


def test_only_biases_are_cut_among_vectors() -> None:
    full = torch.randn(16)
    bias, norm = "self_attention.linear_qkv.bias", "self_attention.q_layernorm.weight"
    parts = [shard(bias, full, rank, 2) for rank in range(2)]
    assert [len(part) for part in parts] == [8, 8]
    assert torch.equal(unshard(bias, parts), full)
    assert torch.equal(shard(norm, full, 1, 2), full)


def test_swiglu_halves_are_cut_separately() -> None:
    full = torch.arange(8.0)[:, None]
    assert shard("linear_fc1", full, 0, 2).flatten().tolist() == [0, 1, 4, 5]


def test_places_are_in_megatrons_order() -> None:
    sizes = {"tensor": 2, "context": 2, "data": 3, "pipeline": 2}
    places = [place_of(rank, sizes) for rank in range(24)]
    assert places[1] == {"tensor": 1, "context": 0, "data": 0, "pipeline": 0}
    assert places[2] == {"tensor": 0, "context": 1, "data": 0, "pipeline": 0}
    assert places[4] == {"tensor": 0, "context": 0, "data": 1, "pipeline": 0}
    assert places[12] == {"tensor": 0, "context": 0, "data": 0, "pipeline": 1}
    assert len({tuple(place.values()) for place in places}) == 24


class Unread:
    """A part that must stay in its file."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"read ({name}), although this process measures something else")


def test_only_what_a_process_measures_is_read(layout: Layout) -> None:
    """Of 64 ranks' states each process would read all directions otherwise, onto its GPU."""
    sizes = {"tensor": 2, "context": 1, "data": 2, "pipeline": 1}
    parts = [torch.full((4, 3), float(rank)) for rank in range(4)]

    def state(rank: int) -> dict[str, Any]:
        directions = [{"head": parts[rank], "decoder.layers.9.mlp.linear_fc2.weight": Unread()}]
        meter = {"directions": directions, "sums": torch.ones(2), "target_sums": torch.ones(2)}
        sums = {"losses": torch.ones(2), "objective": torch.ones(2), "loss_meter": None}
        mixer = {"controller": {} if rank == 0 else None}
        return sums | {"meter": meter | {"switch": (True, None)}, "mixer": mixer}

    whole = merge_states([state(rank) for rank in range(4)], sizes)
    own = split_state(whole, layout, {"head", "decoder.layers.0.mlp.linear_fc2.weight"})
    (direction,) = own["meter"]["directions"]
    assert list(direction) == ["head"]
    # Of the first data-parallel rank alone, both tensor-parallel parts; a copy, not the file.
    assert torch.equal(direction["head"], torch.cat(parts[:2]))
    assert own["losses"].tolist() == [4, 4]
    direction["head"].zero_()
    assert parts[1].min() == 1


def test_losses_of_a_window_are_added_up_and_kept_by_one_process() -> None:
    def state(rank: int) -> dict[str, Any]:
        sums = torch.full((4, 3), 1.0 + rank)
        loss_meter = {"sums": sums.clone(), "enabled": True}
        own = {"losses": sums, "objective": sums[:, :1], "loss_meter": loss_meter, "meter": None}
        return own | {"mixer": {"outer_step": 2, "controller": {} if rank == 0 else None}}

    sizes = {"tensor": 1, "context": 1, "data": 2, "pipeline": 1}
    whole = merge_states([state(0), state(1)], sizes)
    assert (whole["loss_meter"]["sums"] == 3).all()
    with parallel_layout.start(ParallelSection()) as layout:
        first = split_state(whole, layout, set())
        other = replace(layout, data=replace(layout.data, rank=1))
        second = split_state(whole, other, set())
    assert (first["loss_meter"]["sums"] == 3).all()
    assert (second["loss_meter"]["sums"] == 0).all()
    assert first["loss_meter"]["enabled"]
    assert second["loss_meter"]["enabled"]
