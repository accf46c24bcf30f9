"""Mixtures by schedule: which mixture holds at a training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import resolve_mixture


@dataclass(frozen=True)
class Stage:
    """From `first_step` on, sequences are drawn from `mixture` [S]."""

    name: str
    first_step: int
    mixture: FloatArray


def resolve_stages(config: Config, tokens: Sequence[int]) -> list[Stage]:
    """The stages of a training run, the first at step 0.

    A stage begins with the first step that starts at or after its `from_tokens`.

    Args:
        config: of `fastmix train`.
        tokens: each source's tokens.

    Raises:
        UserError: if a mixture is wrong, or a stage would hold no step.
    """
    train, names = config.train, config.source_names
    per_step = train.global_batch * train.seq_length
    stages = [Stage("first", 0, resolve_mixture(config.mixture, names, tokens, "mixture"))]
    for number, given in enumerate(config.stages):
        first = -(-given.from_tokens // per_step)
        where = f"stages.{number} ({given.name})"
        if first <= stages[-1].first_step:
            raise UserError(
                f"{where}: from_tokens must be at least {per_step:,} (a step's tokens) beyond the "
                "stage before"
            )
        if first >= train.steps:
            raise UserError(
                f"{where} begins at {given.from_tokens:,} tokens, but the run ends at "
                f"{per_step * train.steps:,}"
            )
        mixture = resolve_mixture(given.mixture, names, tokens, f"{where}: mixture")
        stages.append(Stage(given.name, first, mixture))
    return stages


def stage_at(stages: Sequence[Stage], step: int) -> int:
    """The number of the stage that holds at a step."""
    return max(number for number, stage in enumerate(stages) if stage.first_step <= step)


def average_mixture(stages: Sequence[Stage], steps: int) -> FloatArray:
    """[S] the shares of a whole run's tokens."""
    ends = [*(stage.first_step for stage in stages[1:]), steps]
    lengths = [end - stage.first_step for stage, end in zip(stages, ends, strict=True)]
    shares: FloatArray = np.average([stage.mixture for stage in stages], axis=0, weights=lengths)
    return shares
