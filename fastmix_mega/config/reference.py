"""docs/reference.md from the schema itself, so that it cannot go stale (a test compares them).

python -m fastmix_mega.config.reference > docs/reference.md
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fastmix_mega.config.schema import Config

HEAD = """# Reference: every configuration key

Made from the schema by `python -m fastmix_mega.config.reference > docs/reference.md`; edit the
docstrings in `fastmix_mega/config/` instead of this file. A key is overridden on
the command line as `section.key=value`. An unknown key is an error.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, note, schema in _sections(Config, "", set()):
        parts.append(f"\n## {title}\n\n{note}\n\n{_table(schema)}")
    parts.append(
        "\n## A file for `fastmix export --constraints`\n\nIt holds the same keys as "
        "`search.constraints` above.\n"
    )
    return "".join(parts)


def _sections(
    schema: type[BaseModel], path: str, seen: set[type[BaseModel]]
) -> Iterator[tuple[str, str, type[BaseModel]]]:
    seen.add(schema)
    note = " ".join((schema.__doc__ or "").split())
    yield (f"`{path}`" if path else "Top level", note, schema)
    for name, field in schema.model_fields.items():
        inner, suffix = _inner(field.annotation)
        if inner is not None and inner not in seen:
            yield from _sections(inner, f"{path}.{name}{suffix}".lstrip("."), seen)


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The section that a field holds, and how its entries are addressed."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    origin = typing.get_origin(annotation)
    suffix = {list: ".N", dict: ".NAME"}.get(origin, "") if origin else ""
    for part in typing.get_args(annotation):
        found, more = _inner(part)
        if found is not None:
            return found, suffix + more
    return None, ""


def _table(schema: type[BaseModel]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in schema.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {_type(field)} | {_default(field)} | {meaning} |")
    return "\n".join(rows) + "\n"


def _type(field: FieldInfo) -> str:
    limits = [f"{sign} {limit:g}" for sign, limit in _limits(field)]
    return ", ".join([_words(field.annotation), *limits])


def _limits(field: FieldInfo) -> Iterator[tuple[str, float]]:
    for each in field.metadata:
        for key, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
            if isinstance(getattr(each, key, None), int | float):
                yield sign, getattr(each, key)


def _words(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _words(parts[0])
    if origin is typing.Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part) for part in parts if part is not type(None))
    if origin is list:
        return f"list of {_words(parts[0])}"
    if origin is dict:
        return f"{_words(parts[1])} by name"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return names.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "none: must be given"
    if isinstance(field.default, BaseModel) or field.default in ([], {}):
        return "empty" if field.default in ([], {}) else "see its section"
    if field.default is None:
        return "–"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default}`"


if __name__ == "__main__":
    print(reference(), end="")
