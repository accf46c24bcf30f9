"""What every part of the configuration has in common, and the schema's small types."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fastmix_mega.paths import expand
from fastmix_mega.quantities import parse_quantity


def _number(value: Any) -> Any:
    """`true` is no number, though Python and pydantic take it for 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def whole_number(value: Any) -> Any:
    """Also 2T, 300B and 1e3, which YAML takes for text."""
    return parse_quantity(value) if isinstance(_number(value), str) else value


PositiveInt = Annotated[int, BeforeValidator(whole_number), Field(gt=0, le=10**12)]
WholeNumber = Annotated[int, BeforeValidator(whole_number), Field(ge=0)]
Seed = Annotated[int, BeforeValidator(whole_number), Field(ge=0, lt=2**31)]
TokenCount = Annotated[int, BeforeValidator(whole_number), Field(gt=0, le=10**15)]
PositiveFloat = Annotated[float, BeforeValidator(_number), Field(gt=0)]
NonNegativeFloat = Annotated[float, BeforeValidator(_number), Field(ge=0)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[\w.+-]+$", max_length=100)]
PathText = Annotated[str, AfterValidator(expand)]
"""A path, with `~` and `$NAME` expanded."""


class Section(BaseModel):
    """Base of every section: unknown keys and non-finite numbers are errors, values are frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
