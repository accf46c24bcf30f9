"""Reading YAML that may be wrong, and explaining what is wrong in a user's words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fastmix_mega.config.renames import Note, with_new_names
from fastmix_mega.errors import UserError

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
        reason = " ".join(str(error).split())
        raise UserError(f"{where} is not valid YAML: {reason}") from None


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
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
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


def explain_mistakes(error: ValidationError, where: str, schema: type[BaseModel]) -> str:
    """All of pydantic's errors about `schema`, one a line."""
    lines = [_explain(item, schema) for item in error.errors()]
    return "\n".join([f"{where}: {len(lines)} mistake(s)", *lines])


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


def _explain(item: Any, schema: type[BaseModel]) -> str:
    """One line for one of pydantic's errors."""
    location: tuple[int | str, ...] = item["loc"]
    # The tags that pydantic adds for members of a union are no keys of the user's.
    keys = [
        part
        for part in location
        if not str(part).startswith(("dict[", "list[", "str", "function-"))
    ]
    where = ".".join(map(str, keys)) or "the whole"
    if item["type"] == "extra_forbidden":
        known = _known_keys(schema, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"  {where}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"  {where}: missing; it has no default"
    message = item["msg"].removeprefix("Value error, ")
    given = item.get("input")
    shown = "" if isinstance(given, dict | list | BaseModel) else f" (given: {given!r})"
    return f"  {where}: {message}{shown}"


def _known_keys(section: type[BaseModel], location: Iterable[int | str]) -> list[str]:
    for key in location:
        if isinstance(key, int) or key not in section.model_fields:
            continue  # An entry of a list or of a mapping by name.
        inner = _section_within(section.model_fields[key].annotation)
        section = inner or section
    return sorted(section.model_fields)


def _section_within(annotation: Any) -> type[BaseModel] | None:
    """The section in `Section`, `list[Section]`, `dict[str, Section]` or `Section | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_within(part) for part in getattr(annotation, "__args__", ()))
    return next((section for section in found if section is not None), None)
