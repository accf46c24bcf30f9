"""Reading YAML that may be wrong; `mistakes` explains what is wrong in a user's words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fastmix_mega.config.mistakes import explain_mistakes
from fastmix_mega.config.renames import Note, with_new_names
from fastmix_mega.errors import UserError
from fastmix_mega.paths import rule_for

SomeSection = TypeVar("SomeSection", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; a user meant one of them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise UserError(f"the key {key!r} stands twice (line {line}); keep one of them")
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML that may be wrong; UserError names `where` and the line."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid YAML: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What PyYAML found, on one line, without its name for a text that is no file."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        mark = error.problem_mark
        context = f" ({error.context})" if error.context else ""
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}{context}"
    return " ".join(str(error).split())


def ignore(text: str) -> None:
    """A `Note` that nobody reads."""


def read_settings(
    path: str | Path, overrides: Sequence[str] = (), note: Note = ignore
) -> dict[str, Any]:
    """The plain data of a configuration file, with `key.path=value` overrides applied.

    Args:
        path: the file.
        overrides: in order; the last one of a key wins.
        note: hears of old names.

    Raises:
        UserError: if the file is no YAML mapping, or an override has no place.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        rule = rule_for(path)
        raise UserError(f"cannot read the configuration {path}: {error.strerror}{rule}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file; give a YAML configuration") from None
    content = read_yaml(text, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold `key: value` lines, for example those of configs/")
    for override in overrides:
        _apply_override(content, override)
    return with_new_names(content, str(path), note)


def validated(content: dict[str, Any], schema: type[SomeSection], where: str) -> SomeSection:
    """Plain data as a section; UserError lists every mistake, one a line."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise UserError(explain_mistakes(error, where, schema)) from None


def _apply_override(content: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"the override {override!r} must look like train.steps=100")
    node: Any = content
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise UserError(
                    f"the override {override!r}: {'.'.join(keys[:depth])} is a list of "
                    f"{len(node)}; name an entry by its number, from 0"
                )
            index: Any = int(key)
        elif isinstance(node, dict):
            index = key
        else:
            raise UserError(f"the override {override!r}: {'.'.join(keys[:depth])} has no parts")
        if last:
            node[index] = read_yaml(value, f"the override {override!r}")
        else:
            if isinstance(node, dict) and node.get(index) is None:
                node[index] = {}
            node = node[index]
