"""The whole configuration: the common schema, and one section for every method that has one."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import create_model, field_validator, model_validator

from fastmix_mega.config.parse import read_settings, validated
from fastmix_mega.config.schema import Config
from fastmix_mega.methods.base import Method
from fastmix_mega.methods.registry import METHODS


class _AnyMethod(Config):
    @field_validator("method")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in METHODS:
            return value
        close = difflib.get_close_matches(value, METHODS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(METHODS)}"
        raise ValueError(f"no such method; {hint}")

    @model_validator(mode="after")
    def _method_uses_the_keys(self) -> _AnyMethod:
        for objection in METHODS[self.method].objections(self):
            raise ValueError(objection)
        return self


def full_schema() -> type[Config]:
    """The common schema, and the section of every method in the registry that has one."""
    return _schema_of(tuple(METHODS.items()))


@cache
def _schema_of(methods: tuple[tuple[str, type[Method]], ...]) -> type[Config]:
    sections: dict[str, Any] = {
        name: (method.Settings, method.Settings())
        for name, method in methods
        if method.Settings is not None
    }
    return create_model("FullConfig", __base__=_AnyMethod, __doc__=Config.__doc__, **sections)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file and apply `key.path=value` overrides.

    Raises:
        UserError: with every mistake found, one a line, and where it stands.
    """
    return parse_config(read_settings(path, overrides, _note), where=str(path))


def parse_config(content: dict[str, Any], where: str = "the configuration") -> Config:
    """Validate plain data as a configuration; UserError lists every mistake."""
    return validated(content, full_schema(), where)


def _note(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {text}", file=sys.stderr)
