"""YAML and JSON as trainers write and read them, with errors that a user can act on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fastmix_mega.config.parse import read_yaml
from fastmix_mega.errors import UserError
from fastmix_mega.reading import parse_json


def to_yaml(notes: Sequence[str], content: Mapping[str, Any]) -> str:
    """A YAML document with the notes as comments at its top."""
    comment = "".join(f"# {line}\n" for line in notes)
    return comment + yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=1000)


def from_yaml(text: str) -> dict[str, Any]:
    """A mapping. Raises: UserError."""
    content = read_yaml(text, "it")
    if not isinstance(content, dict):
        raise UserError("it holds no `key: value` lines")
    return content


def from_json(text: str) -> dict[str, Any]:
    """An object. Raises: UserError."""
    try:
        content = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"it is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError("it holds no JSON object")
    return content


def entries(content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of mappings under `key`. Raises: UserError."""
    found = content.get(key)
    if not isinstance(found, list) or not found or not all(isinstance(e, dict) for e in found):
        raise UserError(f"`{key}` must be a list of mappings")
    return found


def required(entry: Mapping[str, Any], *keys: str) -> list[Any]:
    """The values of keys. Raises: UserError naming the one that is missing."""
    for key in keys:
        if entry.get(key) is None:
            raise UserError(f"an entry lacks `{key}`: {json.dumps(entry, default=str)[:200]}")
    return [entry[key] for key in keys]


def a_number(value: Any, where: str) -> float:
    """Raises: UserError if it is none (a bool is none)."""
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {value!r} is no number") from None
