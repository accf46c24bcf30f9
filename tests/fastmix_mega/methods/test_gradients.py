"""What methods that score gradients cost, and when their objective makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from fastmix_mega.configuration import parse_config
from fastmix_mega.data.run_inputs import Inputs, open_inputs
from fastmix_mega.methods.fastmix import FastMix
from fastmix_mega.methods.gradients import objective_problems, window_rate
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.training.engine.learning_rate import learning_rate
from fastmix_mega.training.run import Run


def cost_of_scores(settings: dict[str, Any], inputs: Inputs) -> float:
    """Of five windows, in proxy runs, without the looks at the targets."""
    nothing: Any = None  # A cost needs no engine.

    def cost(score_tokens: float | None) -> float:
        search = settings["search"] | {"score_tokens": score_tokens}
        config = parse_config(settings | {"search": search})
        shape = resolve_shape(config.model, 300)
        run = Run(config, config, nothing, inputs, shape, engine=nothing, sampler=nothing)
        return FastMix(config).cost(run, 5, config.train.steps)

    return cost(None) - cost(1e-9)


def test_the_cost_counts_what_is_scored_by_default(
    settings: dict[str, Any], chats: dict[str, Any]
) -> None:
    text, conversations = (open_inputs(parse_config(each)) for each in (settings, chats))
    whole = cost_of_scores(settings, conversations)
    assert whole > 0
    assert whole == pytest.approx(8 * cost_of_scores(settings, text))


def test_a_windows_rate_is_the_sum_of_its_steps(settings: dict[str, Any]) -> None:
    config = parse_config(settings)
    train = config.train
    wanted = sum(learning_rate(train.schedule, step, train.steps) for step in (4, 5, 6, 7))
    assert config.search.every == 4
    assert window_rate(config, 4) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({}, None),
        ({"objective": "minimax"}, None),
        ({"objective": "minimax", "target_reference": {"near": 5.0, "far": 5.5}}, None),
        ({"target_reference": {"near": 5.0, "far": 5.5}}, "is of search.objective: minimax"),
        ({"objective": "minimax", "target_reference": {"near": 5.0}}, "no loss for the target far"),
        (
            {"objective": "minimax", "target_reference": {"near": 5, "far": 5, "nobody": 5}},
            "nobody is no target",
        ),
    ],
)
def test_the_objective_and_its_keys_belong_together(
    settings: dict[str, Any], search: dict[str, Any], words: str | None
) -> None:
    config = parse_config(settings | {"search": settings["search"] | search})
    found = list(objective_problems(config))
    assert [words in text for text in found] == [True] if words else not found


def test_minimax_needs_two_targets(settings: dict[str, Any]) -> None:
    settings["search"]["objective"] = "minimax"
    config = parse_config(settings | {"targets": settings["targets"][:1]})
    assert "needs at least two targets" in "".join(objective_problems(config))
