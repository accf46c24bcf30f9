"""The configuration's part about an old mixture that a search goes on from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fastmix_mega.config.base import Name, PathText, Section


class ReuseSection(Section):
    """Go on from an old mixture: sources that are the same keep their ratios and move as one group,
    and only what is new, split or changed is searched."""

    mixture: PathText
    """A mixture.json or the run folder of the old search; its tokenizer must be the same."""
    splits: dict[Name, Annotated[list[Name], Field(min_length=1)]] = Field(default={})
    """Old sources that were split, each with its parts among `sources`. Parts that have the old
    source's files are found without it."""
    free: list[Name] = Field(default=[])
    """Sources that are searched although they are the same."""
    keep: list[Name] = Field(default=[])
    """Sources that keep their ratios although their data changed."""

    @model_validator(mode="after")
    def _belong_together(self) -> ReuseSection:
        parts = [name for members in self.splits.values() for name in members]
        named = [*parts, *self.free, *self.keep]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]} is named twice; a source is a part, free or kept")
        return self
