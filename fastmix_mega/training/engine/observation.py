"""What a search observes of ordinary training: one of these is given to the engine.

Nothing observed changes what is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from fastmix_mega.model.initialize import Weights


@dataclass(frozen=True)
class HeadScores:
    """Alignment scores at the language-model head, in closed form, one per sequence."""

    single_source = False
    """Whether every micro-batch must hold one source."""


@dataclass(frozen=True)
class GradientScores:
    """Alignment scores over any parameters, by hooks in the backward pass, one per micro-batch."""

    parameters: str
    """`all`, `body`, `hooks:head`, or a regular expression over parameter names."""
    single_source = True


@dataclass(frozen=True)
class SequenceLosses:
    """The loss of every training sequence."""

    reference: Weights | None = None
    """Of another model: what the losses exceed its losses by is observed then."""
    single_source = False


Observation: TypeAlias = HeadScores | GradientScores | SequenceLosses


def scores_of(parameters: str) -> HeadScores | GradientScores:
    """The observation that `search.scores` names."""
    return HeadScores() if parameters == "head" else GradientScores(parameters)
