"""Which columns of a row are meant: `--map`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

ColumnMap = tuple[tuple[str, str], ...]
"""Pairs of a field and the column it is taken from; from none where that is empty."""


def parse_mapping(fields: Sequence[str], text: str) -> ColumnMap:
    """`instruction=query,output=response`, for the command line.

    Args:
        fields: that can be mapped.
        text: what the user wrote.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        field, equals, column = (word.strip() for word in part.partition("="))
        if not equals or field in found:
            raise argparse.ArgumentTypeError(
                "must look like instruction=query,output=response, each field once"
            )
        if field not in fields:
            raise argparse.ArgumentTypeError(
                f"{field!r} is no field; known are {', '.join(fields)}"
            )
        found[field] = column
    return tuple(found.items())


def columns_of(mapping: ColumnMap) -> list[str]:
    """The columns that a mapping may read: `a.b` is b of the object a, or a column of that name."""
    return [name for _, column in mapping if column for name in (column, column.split(".")[0])]


def map_row(row: dict[str, Any], mapping: ColumnMap) -> dict[str, Any]:
    """The row with its columns called by the fields that they are taken for."""
    if not mapping:
        return row
    taken = {name for name in columns_of(mapping) if name in row}
    found = {name: value for name, value in row.items() if name not in taken}
    for field, column in mapping:
        found.pop(field, None)
        value = _value(row, column) if column else None
        if value is not None:
            found[field] = value
    return found


def _value(row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
