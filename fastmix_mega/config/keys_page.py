"""The page of all configuration keys, made from the schema itself so that it cannot go stale."""

from __future__ import annotations

import textwrap
import types
import typing
from collections.abc import Collection, Iterator
from typing import Any, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

HEAD = """# Reference: every configuration key

    fastmix check configs/demo.yaml train.steps=1000    # every key can be set on the command line

Made from the schema by `python -m fastmix_mega.cli.reference_page > docs/reference.md`; edit the
docstrings in `fastmix_mega/config/` and `fastmix_mega/methods/` instead of this file. An unknown
key is an error. The first part holds what users set. The second part holds what changes how a
search measures and moves: leave it alone unless you do research on mixtures.
"""
RESEARCH_KEYS = {
    "search": (
        "exploration",
        "target_step",
        "target_scores",
        "score_tokens",
        "damping",
        "precondition",
        "prior_strength",
        "decay",
        "repetitions",
        "reference_rate",
    )
}
"""Keys of the second part, by section; the methods' own sections are there as well."""


def reference(schema: type[BaseModel], methods: Collection[str]) -> str:
    """The whole page.

    Args:
        schema: of the configuration.
        methods: what `method` may say; those with a section of their own have it under that name.
    """
    every = list(_sections(schema, "", set()))
    parts = [HEAD, "\n# Keys that users set\n"]
    for path, note, section in every:
        if path not in methods:
            hidden = RESEARCH_KEYS.get(path, ())
            shown = [name for name in section.model_fields if name not in (*hidden, *methods)]
            parts.append(
                f"\n## {_title(path)}\n\n{_wrapped(note)}\n\n{_table(section, shown, methods)}"
            )
    parts.append(
        "\n## A file for `fastmix export --constraints`\n\nIt holds the same keys as "
        "`search.constraints` above.\n\n# Keys for research\n"
    )
    for path, note, section in every:
        if path in RESEARCH_KEYS:
            table = _table(section, RESEARCH_KEYS[path], methods)
            parts.append(f"\n## More of {_title(path)}\n\n{table}")
        elif path in methods:
            parts.append(
                f"\n## {_title(path)}\n\n{note}\n\n{_table(section, section.model_fields, methods)}"
            )
    return "".join(parts)


def _wrapped(note: str) -> str:
    return textwrap.fill(note, 100, break_long_words=False, break_on_hyphens=False)


def _title(path: str) -> str:
    return f"`{path}`" if path else "Top level"


def _sections(
    schema: type[BaseModel], path: str, seen: set[type[BaseModel]]
) -> Iterator[tuple[str, str, type[BaseModel]]]:
    seen.add(schema)
    yield path, " ".join((schema.__doc__ or "").split()), schema
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


def _table(schema: type[BaseModel], names: Collection[str], methods: Collection[str]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name in names:
        field = schema.model_fields[name]
        kind = " or ".join(f"`{each}`" for each in methods) if name == "method" else _type(field)
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {kind} | {_default(field)} | {meaning} |")
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
