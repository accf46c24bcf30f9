"""The text of a row: one field or several, on the row's top or inside its objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True)
class Problem:
    """A line or row that is no document."""

    reason: str
    size: int = 0
    """Bytes of the line, where they are known."""


@dataclass(frozen=True)
class Blank(Problem):
    """A line of nothing: neither a document nor a mistake."""

    reason: str = "the line is blank"


BLANK = Blank()
"""One for all: a small compressed file can hold ten million blank lines."""


def parse_json(line: bytes) -> Any:
    """What a line of JSON holds, or a Problem. NaN and Infinity, which Python writes, are read."""
    if not line or line.isspace():
        return BLANK
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if b"NaN" in line or b"Infinity" in line:
            found = _parse_python_json(line)
            if not isinstance(found, Problem):
                return found
        return Problem(f"not JSON ({error})", len(line))


def _parse_python_json(line: bytes) -> Any:
    try:
        found = json.loads(line.decode("utf-8"))
        # Half a pair of surrogates has no UTF-8; orjson refuses it too.
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return Problem("not JSON", len(line))
    return found


_MISSING = object()


def top_fields(key: str, names: Iterable[str]) -> list[str]:
    """Which of a table's columns may hold the field `key`, which may lie inside one of them."""
    return [name for name in names if name == key or key.startswith(f"{name}.")]


def _find(row: Any, key: str) -> Any:
    """A field of a row: one of that name, else of the object with the longest name that has it."""
    if not isinstance(row, dict):
        return _MISSING
    if key in row:
        return row[key]
    end = key.rfind(".")
    while end > 0:
        if key[:end] in row:
            found = _find(row[key[:end]], key[end + 1 :])
            if found is not _MISSING:
                return found
        end = key.rfind(".", 0, end)
    return _MISSING


def text_of(row: Any, keys: Sequence[str], separator: str) -> str | Problem:
    """The text of a row.

    Args:
        row: an object.
        keys: of its fields, in order. Of several, those that are null or empty are left out.
        separator: between two texts.
    """
    texts = []
    for key in keys:
        value = _find(row, key)
        if value is _MISSING:
            return Problem(f"not an object with the key {key!r}")
        if value is None and len(keys) > 1:
            continue
        if not isinstance(value, str):
            return Problem(f"{key!r} is not a string")
        if value:
            texts.append(value)
    return separator.join(texts) if texts else Problem("the text is empty")


def utf8_size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
