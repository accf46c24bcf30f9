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
from fastmix_mega.reading import read_limited

SomeSection = TypeVar("SomeSection", bound=BaseModel)


LARGEST = 4 << 20
"""Bytes of a YAML file: PyYAML reads a few hundred kilobytes a second."""
MOST_VALUES = 100_000
"""In one document, where an alias counts as all that it stands for."""
LONGEST_NUMBER = 4000
"""Characters: Python writes no longer ones."""


class _Loader(yaml.SafeLoader):
    """YAML that anybody may have written: no objects, no anchors that stand for gigabytes.

    PyYAML keeps the last of two equal keys in silence; a user meant one of them.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values: dict[int, int] = {}
        """By node, how many values it stands for."""
        self._made = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        node: yaml.Node | None = super().compose_node(parent, index)
        if node is None:
            return None
        if is_alias and id(node) not in self._values:
            raise UserError("an anchor stands within itself")
        if not is_alias:
            self._values[id(node)] = 1 + sum(self._values[id(part)] for part in _parts(node))
            self._made += 1
            _require_different_keys(node)
        if self._made > MOST_VALUES or self._values[id(node)] > MOST_VALUES:
            raise UserError(f"it stands for more than {MOST_VALUES:,} values")
        return node

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str):
            value.encode()  # Half a pair of surrogates can be neither written nor shown.
            number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
            if number and len(value) > LONGEST_NUMBER:
                raise UserError(f"a number of {len(value):,} characters")
        return value


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _require_different_keys(node: yaml.Node) -> None:
    """Raises: UserError."""
    seen = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        name = (key.tag, key.value if isinstance(key, yaml.ScalarNode) else id(key))
        if name in seen and name[0] != "tag:yaml.org,2002:merge":
            line = key.start_mark.line + 1
            raise UserError(f"the key {key.value!r} stands twice (line {line}); keep one of them")
        seen.add(name)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML that may be wrong, or made to do harm.

    Raises:
        UserError: names `where` and the line.
    """
    if len(text) > LARGEST:
        raise UserError(f"{where} has more than {LARGEST >> 20} MiB, which no such file needs")
    try:
        return yaml.load(text, Loader=_Loader)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except RecursionError:
        raise UserError(f"{where} is not valid YAML: it is nested too deeply") from None
    # PyYAML meets a wrong !!int, !!bool or !!timestamp with whatever Python says.
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise UserError(f"{where} is not valid YAML: {_reason(error)}") from None
    except ValueError as error:
        raise UserError(f"{where} is not valid YAML: {_reason(error)}") from None


def read_yaml_file(path: str | Path, where: str = "") -> Any:
    """`read_yaml` of a file.

    Raises:
        OSError: if it cannot be read.
        UnicodeDecodeError: if it is no text.
        UserError: names `where`, by default the path.
    """
    text = read_limited(path, LARGEST).decode("utf-8")
    return read_yaml(text, where or str(path))


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
        content = read_yaml_file(path)
    except OSError as error:
        rule = rule_for(path)
        raise UserError(f"cannot read the configuration {path}: {error.strerror}{rule}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file; give a YAML configuration") from None
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
