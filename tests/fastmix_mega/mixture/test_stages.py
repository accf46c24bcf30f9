"""Mixtures by schedule: boundaries, no sample lost or repeated, resumed in a later stage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.configuration import parse_config
from fastmix_mega.data.sampler import MixtureSampler
from fastmix_mega.data.source import TokenSource
from fastmix_mega.errors import UserError
from fastmix_mega.files import read_jsonl
from fastmix_mega.mixture.stages import average_mixture, resolve_stages, stage_at
from fastmix_mega.planning.check import check
from tests.launch import column, run_config
from tests.tiny import SOURCES

STABLE = {"alpha": 0.4, "beta": 0.3, "gamma": 0.2, "delta": 0.1}
ANNEAL = {"alpha": 0.0, "beta": 0.25, "gamma": 0.25, "delta": 0.5}


def staged(settings: dict[str, Any], from_tokens: int = 16 * 128) -> dict[str, Any]:
    stages = [{"name": "anneal", "from_tokens": from_tokens, "mixture": ANNEAL}]
    return settings | {"mixture": STABLE, "stages": stages}


def test_a_stage_begins_with_a_whole_step(settings: dict[str, Any]) -> None:
    for tokens, first in ((16 * 128, 16), (16 * 128 + 1, 17)):
        stages = resolve_stages(parse_config(staged(settings, tokens)), [1] * 4)
        assert [stage.first_step for stage in stages] == [0, first]
        assert [stage_at(stages, step) for step in (0, first - 1, first, 23)] == [0, 0, 1, 1]
        wanted = first * np.array([*STABLE.values()]) + (24 - first) * np.array([*ANNEAL.values()])
        assert average_mixture(stages, 24) == pytest.approx(wanted / 24)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [(1, None), (24 * 128, "the run ends at 3,072"), (23 * 128, None)],
)
def test_stages_within_the_run(settings: dict[str, Any], tokens: int, message: str | None) -> None:
    found = check(parse_config(staged(settings, tokens)), 1, "train").mistakes
    assert (message in found[0]) if message else not found
    twice = staged(settings, 500)
    twice["stages"] = [twice["stages"][0], twice["stages"][0] | {"name": "again"}]
    with pytest.raises(UserError, match="beyond the stage before"):
        resolve_stages(parse_config(twice), [1] * 4)


def test_no_sample_is_lost_or_repeated_between_stages(settings: dict[str, Any]) -> None:
    """Every source's indices are 0, 1, 2, ... over the whole run."""
    stages = resolve_stages(parse_config(staged(settings)), [1] * 4)
    sampler = MixtureSampler(7, 4, 8)
    seen: list[list[int]] = [[] for _ in SOURCES]
    for step in range(24):
        draw = sampler.draw(step, stages[stage_at(stages, step)].mixture)
        for source, index in zip(draw.sources, draw.indices, strict=True):
            seen[source].append(int(index))
    assert all(sorted(indices) == list(range(len(indices))) for indices in seen)
    assert sum(map(len, seen)) == 24 * 8


def test_held_out_samples_are_all_others(corpora: Path) -> None:
    whole = TokenSource("alpha", [str(corpora / "alpha")], 16, 1)
    train = TokenSource("alpha", [str(corpora / "alpha")], 16, 1, holdout=20)
    held = TokenSource("held_out/alpha", [str(corpora / "alpha")], 16, 0, 20, held_out=True)
    assert train.num_samples + held.num_samples == whole.num_samples

    def rows(source: TokenSource) -> set[bytes]:
        return {row.tobytes() for row in source.samples(np.arange(source.num_samples))}

    assert rows(train) | rows(held) == rows(whole)
    assert not rows(train) & rows(held)


@pytest.mark.distributed
def test_resumed_in_the_second_stage(settings: dict[str, Any], tmp_path: Path) -> None:
    """On two processes, bit for bit; shares per stage and held-out losses per source are told."""
    settings = staged(settings) | {"checkpoint": {"every": 10, "keep": 9}}
    settings["evaluation"] = {"every": 12, "sequences": 8, "holdout": 8}
    whole = run_config("train", settings, tmp_path / "whole", processes=2)
    again = tmp_path / "again" / "run"
    shutil.copytree(whole, again)
    for step in (10, 24):
        shutil.rmtree(again / "checkpoints" / f"step_{step}")
    run_config("train", settings, tmp_path / "again", processes=2)
    for key in ("loss", "source_count"):
        assert np.array_equal(
            column(again, "metrics.jsonl", key), column(whole, "metrics.jsonl", key)
        )
    assert (again / "shares.json").read_text() == (whole / "shares.json").read_text()
    losses = [row["eval"] for row in read_jsonl(whole / "metrics.jsonl") if "eval" in row]
    assert list(losses[-1]) == [f"held_out/{name}" for name in SOURCES]
    alpha = column(whole, "metrics.jsonl", "source_count")[:, 0]
    assert alpha[15] > 0
    assert (alpha[15:] == alpha[15]).all()
