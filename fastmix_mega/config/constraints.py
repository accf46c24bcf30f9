"""How a user writes constraints: a YAML file for `fastmix export`, or `search.constraints`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from fastmix_mega.config.base import (
    Name,
    PathText,
    PositiveFloat,
    Section,
    Share,
    TokenCount,
    WholeNumber,
)
from fastmix_mega.config.parse import read_yaml_file, validated
from fastmix_mega.errors import UserError


class SourceLimits(Section):
    """Limits of one source, as shares of the training tokens."""

    min: Share | None = None
    max: Share | None = None
    fixed: Share | None = None
    """The share itself; stands alone."""
    max_epochs: PositiveFloat | None = None
    """Overrides the common `max_epochs` for this source."""

    @model_validator(mode="after")
    def _belong_together(self) -> SourceLimits:
        if self.fixed is not None and (self.min, self.max) != (None, None):
            raise ValueError("`fixed` is the share itself; drop `min` and `max` beside it")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min:g}) is above max ({self.max:g})")
        return self


class GroupLimits(Section):
    """Limits of several sources' joint share."""

    sources: Annotated[list[str], Field(min_length=1)]
    min: Share | None = None
    max: Share | None = None
    fixed: Share | None = None

    @model_validator(mode="after")
    def _belong_together(self) -> GroupLimits:
        SourceLimits(min=self.min, max=self.max, fixed=self.fixed)
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("a source is named twice")
        return self


class Prior(Section):
    """A mixture to stay near to."""

    mixture: PathText | dict[str, float]
    """`uniform`, `proportional`, a mixture.json, or weights by name."""
    strength: Share
    """0 ignores it, 1 takes it instead of the found mixture. Between, the two are blended as
    found^(1 - strength) * prior^strength, which minimises the weighted sum of both distances."""


class Constraints(Section):
    """Limits on a mixture. What breaks none of them stays as it is."""

    budget_tokens: TokenCount | None = None
    """Tokens of the run that the mixture is for; `max_epochs` counts at this budget."""
    max_epochs: PositiveFloat | None = None
    """How often any source may be read within the budget. Repeated text is known to bear about
    four readings (Muennighoff et al., 2023)."""
    read_tokens: dict[Name, WholeNumber] = Field(default={})
    """Tokens of each source that the large run has read before this budget begins, in an earlier
    phase or training: they count in its epochs, and n-grams take them for known."""
    sources: dict[Name, SourceLimits] = Field(default={})
    """Limits by the source's name."""
    groups: dict[Name, GroupLimits] = Field(default={})
    """Limits on joint shares by a name of your choice. Groups may lie inside one another, and
    may not overlap otherwise."""
    prior: Prior | None = None

    @model_validator(mode="after")
    def _epochs_need_a_budget(self) -> Constraints:
        limited = self.max_epochs is not None or any(
            limits.max_epochs is not None for limits in self.sources.values()
        )
        if limited and self.budget_tokens is None:
            raise ValueError("max_epochs needs budget_tokens: the tokens of the large run")
        sets = [(name, set(group.sources)) for name, group in self.groups.items()]
        for index, (name, members) in enumerate(sets):
            for other, others in sets[:index]:
                if members & others and not (members <= others or others <= members):
                    raise ValueError(
                        f"the groups {other} and {name} overlap ({', '.join(members & others)}); "
                        "let one lie inside the other, or keep them apart"
                    )
        return self

    def at_budget(self, tokens: int) -> Constraints:
        """The same with another budget."""
        return self.model_copy(update={"budget_tokens": tokens})


def read_constraints(path: str | Path, budget_tokens: int | None = None) -> Constraints:
    """Read a YAML file of constraints.

    Args:
        path: the file.
        budget_tokens: overrides the file's own.

    Raises:
        UserError: naming the file and every mistake in it.
    """
    try:
        content = read_yaml_file(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise UserError(f"cannot read the constraints {path}: {reason}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold `key: value` lines, for example max_epochs: 4")
    if budget_tokens is not None:
        content["budget_tokens"] = budget_tokens
    return validated(content, Constraints, str(path))
