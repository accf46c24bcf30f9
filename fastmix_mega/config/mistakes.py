"""The schema's errors in a user's words: where, what is wrong, what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

_MESSAGES = {
    "string_pattern_mismatch": "letters, digits and . _ + - only",
    "string_too_long": "must have at most {max_length} letters",
    "string_type": "must be text",
    "list_type": "must be a list: one entry a line, each after a dash",
    "dict_type": "must hold `key: value` lines",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than": "must be above {gt:,}",
    "greater_than_equal": "must be at least {ge:,}",
    "less_than": "must be below {lt:,}",
    "less_than_equal": "must be at most {le:,}",
    "too_short": "must hold at least {min_length}",
    "literal_error": "must be {expected}",
}
"""By pydantic's name of the error; others keep its own words."""
_TAGS = re.compile(r"str|float|int|constrained-\w+|(dict|list|literal|function-\w+)\[.*")
"""What pydantic puts into a location for the members of a union: no keys of the user's."""
SHOWN, LONGEST = 40, 200
"""Mistakes that are told, and the characters of each that are the file's own."""


def explain_mistakes(error: ValidationError, where: str, schema: type[BaseModel]) -> str:
    """All of pydantic's errors about `schema`, one a line."""
    lines = list(dict.fromkeys(_explain(item, schema) for item in error.errors()))
    told = lines[:SHOWN]
    if len(lines) > SHOWN:
        told.append(f"  and {len(lines) - SHOWN:,} more")
    return "\n".join([f"{where}: {len(lines)} mistake(s)", *told])


def shorten(text: str) -> str:
    """What is shown of a text that may be of any length."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _explain(item: Any, schema: type[BaseModel]) -> str:
    """One line for one of pydantic's errors."""
    location: tuple[int | str, ...] = item["loc"]
    keys = [str(part) for part in location if not _TAGS.fullmatch(str(part))]
    where = shorten(".".join(keys)) or "the whole"
    kind = item["type"]
    if kind == "extra_forbidden":
        known = _known_keys(schema, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"  {where}: unknown key; {hint}"
    if kind == "missing":
        return f"  {where}: missing; it has no default"
    given = item.get("input")
    told = shorten(repr(given))
    if kind in ("model_type", "model_attributes_type", "dataclass_type"):
        known = _known_keys(schema, location)
        return f"  {where}: must hold `key: value` lines: {', '.join(known)} (given: {told})"
    message = item["msg"].removeprefix("Value error, ")
    if kind in _MESSAGES:
        message = _MESSAGES[kind].format(**item.get("ctx", {}))
    if kind == "literal_error":
        message += _nearest(str(given), item["ctx"]["expected"])
    shown = "" if isinstance(given, dict | list | BaseModel) else f" (given: {told})"
    return f"  {where}: {message}{shown}"


def _nearest(given: str, expected: str) -> str:
    """A hint at the choice that was probably meant; empty if none is near."""
    close = difflib.get_close_matches(given, re.findall(r"'([^']*)'", expected), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


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


def known_paths(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of a schema, dotted; `*` stands for names and numbers of the user's."""
    found = []
    for name, field in schema.model_fields.items():
        path = f"{prefix}{name}"
        found.append(path)
        kinds = {get_origin(part) for part in _members(field.annotation)}
        if dict in kinds or list in kinds:
            path = f"{path}.*"
            found.append(path)
        inner = _section_within(field.annotation)
        if inner is not None:
            found += known_paths(inner, f"{path}.")
    return found


def _members(annotation: Any) -> list[Any]:
    """The annotation, and those of a union's members and within Annotated."""
    inner = [each for part in get_args(annotation) for each in _members(part)]
    return [annotation, *inner]
