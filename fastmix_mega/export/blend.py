"""What a reader finds in a blend file of any trainer, before it is turned into shares of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fastmix_mega.export.plan import Part

Unit = Literal["tokens", "rows", "epochs", "kept"]
"""What a weight says: a share of tokens; a share of rows (documents); how often all rows are read;
the share of the rows that is kept."""


@dataclass(frozen=True)
class Given:
    """A file to read."""

    text: str
    path: Path
    """For files that name others beside them."""


@dataclass(frozen=True)
class Blend:
    """Sources with their numbers as the file gives them, not normalised."""

    parts: Sequence[Part]
    unit: Unit = "tokens"
    notes: Sequence[str] = ()
    """What the file says and we do not take, and what a number means there."""
    stage: str = ""
    """The name of this part of a schedule; empty where the file has one mixture."""
    begins: int = 0
    """The trainer's step (or sequence) at which the stage begins."""
    begins_unit: str = "steps"
    begins_tokens: int | None = None
    """The same in tokens, where the file tells the tokens of a step."""
    leaves: Sequence[str] = field(default=())
    """What each part reads, where the path alone does not tell (a subset, a split); else empty."""


Reader = Callable[[Given], list[Blend]]
"""Reads a file; one blend for every stage. Raises UserError or ValueError for what it is not."""


def token_shares(read: Callable[[str], list[Part]]) -> Reader:
    """A reader whose numbers are shares of tokens and which has nothing else to say."""

    def reader(given: Given) -> list[Blend]:
        return [Blend(read(given.text))]

    return reader


def row_shares(read: Callable[[str], list[Part]]) -> Reader:
    """As `token_shares`, of rows."""

    def reader(given: Given) -> list[Blend]:
        return [Blend(read(given.text), "rows")]

    return reader
