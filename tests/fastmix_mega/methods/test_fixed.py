"""The mixture of `fastmix train`: what it sets, keeps, and says of the tokens that were drawn."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.configuration import parse_config
from fastmix_mega.data.sampler import MixtureSampler
from fastmix_mega.errors import UserError
from fastmix_mega.methods.fixed import (
    StagedMixture,
    finished_before,
    run_of_a_search,
    share_rows,
    share_table,
)
from fastmix_mega.mixture.stages import Stage
from fastmix_mega.training.identity import record_run

NAMES = ["a", "b"]
STAGES = [
    Stage("first", 0, np.array([0.75, 0.25])),
    Stage("anneal", 4, np.array([0.25, 0.75])),
]


def drawn(mixer: StagedMixture, first: int, end: int) -> None:
    for step in range(first, end):
        mixer.before_step(step)
        mixer.sampler.draw(step, mixer.policy.distribution)
        assert mixer.after_step(step) is None


def new() -> StagedMixture:
    return StagedMixture(STAGES, MixtureSampler(7, 2, 8))


def test_the_mixture_changes_with_the_stage() -> None:
    mixer = new()
    assert mixer.policy.mixture.tolist() == [0.75, 0.25]
    drawn(mixer, 0, 4)
    assert mixer.policy.mixture.tolist() == [0.75, 0.25]
    assert mixer.sampler.drawn.tolist() == [24, 8]
    drawn(mixer, 4, 6)
    assert mixer.policy.mixture.tolist() == [0.25, 0.75]
    assert mixer.sampler.drawn.tolist() == [28, 20]
    assert [each.tolist() for each in mixer.drawn_at] == [[0, 0], [24, 8]]
    # No sequence is weighed.
    assert mixer.policy.loss_weights.tolist() == [1.0, 1.0]
    assert not mixer.finished


@pytest.mark.parametrize("cut", [1, 4, 5])
def test_a_resumed_training_has_the_same_shares(cut: int) -> None:
    whole, first, second = new(), new(), new()
    drawn(whole, 0, 6)
    drawn(first, 0, cut)
    second.load(pickle.loads(pickle.dumps(first.state())))
    second.sampler.drawn = first.sampler.drawn.copy()
    drawn(second, cut, 6)
    assert share_rows(NAMES, second, 6) == share_rows(NAMES, whole, 6)


def test_shares_are_told_by_stage_and_for_the_whole_run() -> None:
    mixer = new()
    drawn(mixer, 0, 6)
    rows = share_rows(NAMES, mixer, 6)
    told = [(row["stage"], row["source"], row["requested"], row["samples"]) for row in rows]
    assert told == [
        ("first", "a", 0.75, 24),
        ("first", "b", 0.25, 8),
        ("anneal", "a", 0.25, 4),
        ("anneal", "b", 0.75, 12),
        ("all", "a", pytest.approx((4 * 0.75 + 2 * 0.25) / 6), 28),
        ("all", "b", pytest.approx((4 * 0.25 + 2 * 0.75) / 6), 20),
    ]
    assert rows[0]["observed"] == 24 / 32
    assert rows[4]["observed"] == 28 / 48
    first, *lines = share_table(rows).splitlines()
    assert first.split() == ["stage", "source", "requested", "observed", "difference"]
    assert lines[0].split() == ["first", "a", "75.000%", "75.000%", "+0.000%"]


def test_one_stage_has_no_sum_of_its_own() -> None:
    mixer = StagedMixture(STAGES[:1], MixtureSampler(7, 2, 8))
    drawn(mixer, 0, 2)
    assert [row["stage"] for row in share_rows(NAMES, mixer, 2)] == ["first", "first"]


def test_a_run_of_a_search_is_its_training_without_its_search(settings: dict[str, Any]) -> None:
    settings |= {"method": "doremi", "doremi": {"step": 2.0}}
    config = parse_config(settings)
    changes = {"run_dir": f"{config.run_dir}/below", "mixture": "proportional", "doremi": {}}
    run = run_of_a_search(config, changes)
    assert (run.run_dir, run.mixture) == (changes["run_dir"], "proportional")
    assert run.targets == []
    assert type(run) is type(config)
    for section in ("sources", "tokenizer", "model", "train", "seed", "checkpoint"):
        assert getattr(run, section) == getattr(config, section)
    assert run_of_a_search(config, changes) == run
    with pytest.raises(UserError, match="the run in elsewhere: 3 mistake"):
        run_of_a_search(config, {"run_dir": "elsewhere", "stages": [{}]})


def test_another_run_in_its_folder_is_no_finished_one(settings: dict[str, Any]) -> None:
    run = parse_config(settings)
    assert not finished_before(run)
    record_run(run, "train")
    (Path(run.run_dir) / "checkpoints" / "step_5").mkdir(parents=True)
    assert not finished_before(run)
    with pytest.raises(UserError, match=r"holds another run: seed is 7 there, 8 here"):
        finished_before(parse_config(settings | {"seed": 8}))
