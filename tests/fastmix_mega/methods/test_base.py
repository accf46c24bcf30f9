"""What every method inherits: where it begins, what it refuses, and what it warns of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastmix_mega.configuration import parse_config
from fastmix_mega.data.run_inputs import open_inputs
from fastmix_mega.errors import UserError
from fastmix_mega.methods.base import OpenedData, target_weights, too_few_target_sequences
from fastmix_mega.methods.fastmix import FastMix
from fastmix_mega.methods.registry import METHODS, method_of
from fastmix_mega.methods.start import search_start
from fastmix_mega.mixture.controller import MixtureEstimate

SEARCHES = [name for name, method in METHODS.items() if method.trains and method.own_run]
"""Methods that move a mixture during a run of their own."""
NOT_FASTMIX = [name for name in SEARCHES if name != "fastmix"]


def opened(settings: dict[str, Any]) -> OpenedData:
    inputs = open_inputs(parse_config(settings))
    return OpenedData(inputs.sources, inputs.targets, inputs.tokenizer.sha256)


@pytest.mark.parametrize("method", NOT_FASTMIX)
def test_a_method_begins_with_what_is_given(settings: dict[str, Any], method: str) -> None:
    data = opened(settings)
    settings["method"] = method
    given = {"alpha": 0.4, "beta": 0.3, "gamma": 0.2, "delta": 0.1}
    for initial, wanted in (
        ("auto", [0.25] * 4),
        ("uniform", [0.25] * 4),
        (given, list(given.values())),
    ):
        settings["search"]["initial"] = initial
        found = method_of(parse_config(settings)).preview(data)
        assert found.weights.tolist() == pytest.approx(wanted)
        assert not found.mistakes


@pytest.mark.parametrize("method", NOT_FASTMIX)
@pytest.mark.parametrize(
    "search",
    [
        {"initial": "bigram"},
        {"initial": "auto", "constraints": {"sources": {"beta": {"max": 0.3}}}},
        {"initial": "auto", "reuse": {"mixture": "some/run"}},
    ],
    ids=lambda search: list(search)[-1],
)
def test_keys_of_fastmix_are_refused(
    settings: dict[str, Any], method: str, search: dict[str, Any]
) -> None:
    """They would be dropped without a word otherwise."""
    data = opened(settings)
    settings |= {"method": method, "search": settings["search"] | search}
    with pytest.raises(UserError, match=r"search\.\w+(: bigram)? needs method: fastmix"):
        method_of(parse_config(settings)).preview(data)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "fastmix"])
def test_only_fastmix_ends_early(settings: dict[str, Any], method: str) -> None:
    settings |= {"method": method, "search": settings["search"] | {"stop_when_converged": 0.1}}
    with pytest.raises(UserError, match="stop_when_converged needs method: fastmix"):
        parse_config(settings)
    # A training has no use for the key either, and no objection to it.
    settings["method"] = "fastmix"
    assert method_of(parse_config(settings), "train").verb == "train"


@pytest.mark.parametrize("method", SEARCHES)
def test_a_run_needs_room_for_an_update(settings: dict[str, Any], method: str) -> None:
    settings |= {"method": method}
    assert list(method_of(parse_config(settings)).problems()) == []
    settings["train"]["steps"] = 4  # All of them are of the warm-up.
    (problem,) = method_of(parse_config(settings)).problems()
    assert "4 steps leave no room for an update after 4 steps of warm-up" in problem


def test_targets_and_their_weights(settings: dict[str, Any]) -> None:
    config = parse_config(settings)
    assert target_weights(config).tolist() == [2.0, 1.0]
    assert list(too_few_target_sequences(config)) == []
    settings["search"]["target_batch"] = 1
    (problem,) = too_few_target_sequences(parse_config(settings))
    assert "search.target_batch (1) must be at least the number of targets (2)" in problem


def warnings(settings: dict[str, Any], estimate: MixtureEstimate, outer_steps: int) -> list[str]:
    method = FastMix(parse_config(settings))
    method.start = search_start(method.config, opened(settings), None)
    return method.warnings(estimate, outer_steps)


def test_a_sound_answer_is_not_warned_of(settings: dict[str, Any]) -> None:
    sound = MixtureEstimate(np.array([0.4, 0.3, 0.2, 0.1]), np.full(4, 0.01), better=0.99)
    assert warnings(settings, sound, 40) == []


@pytest.mark.parametrize(
    ("weights", "error", "better", "outer_steps", "words"),
    [
        ([0.4, 0.3, 0.2, 0.1], 0.01, 0.99, 5, "was updated only 5 times"),
        ([0.997, 0.001, 0.001, 0.001], 0.01, 0.99, 40, "has collapsed to almost one source"),
        ([0.28, 0.24, 0.24, 0.24], 0.1, 0.99, 40, "differs from uniform by more than two"),
        ([0.4, 0.3, 0.2, 0.1], 0.01, 0.7, 40, "the probability is 70%, and 95% is wanted"),
    ],
)
def test_what_a_reader_must_know(
    settings: dict[str, Any],
    weights: list[float],
    error: float,
    better: float,
    outer_steps: int,
    words: str,
) -> None:
    estimate = MixtureEstimate(np.array(weights), np.full(4, error), better=better)
    (found,) = warnings(settings, estimate, outer_steps)
    assert words in found
