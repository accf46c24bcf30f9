"""Messages as data writes them, turned into one form: who speaks, what, and whether it counts.

A message is an object with a `role` (system, user, assistant or tool), a `content`, and for some
`weight` 0 (does not count in the loss), `tool_calls`, `reasoning_content` and what else a chat
template may read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from data_tools.readers import Problem

Message = dict[str, Any]
Conversation = list[Message]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
"""What data calls the speakers, and what they are called here."""
CALLS = ("function_call", "tool_call")
"""Roles whose text is the call of a tool."""
MARKS = ("weight", "loss_weight", "train", "training", "trainable", "train_on", "loss", "label")
"""What says whether a message or a row counts: 0 or 1, false or true."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""What an assistant thinks before it answers."""
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
KNOWN = frozenset(
    {"role", "from", "content", "value", "name", "tool_calls", "tool_call_id", "function_call"}
    | {"train_detail", *MARKS, *REASONING, *MEDIA}
)
"""The fields of a message that are used, or refused if they cannot be."""


def read_messages(turns: Any, field: str) -> Conversation | Problem:
    """A list of messages in any of the usual forms.

    Args:
        turns: what the row holds.
        field: where, for what is said of it.
    """
    turns = parsed(turns)
    if not isinstance(turns, list) or not turns:
        return Problem(f"{field!r} is not a list of messages")
    found: Conversation = []
    for number, turn in enumerate(turns, 1):
        message = _message(turn)
        if isinstance(message, str):
            return Problem(f"message {number} of {field!r} {message}")
        found.append(message)
    return found


def _message(turn: Any) -> Message | str:
    """Or what is wrong with it."""
    if not isinstance(turn, dict):
        return "is not an object"
    name = _first(turn, ("role", "from"))
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        return f"has the unknown role {name!r}"
    for field in MEDIA:
        if parsed(turn.get(field)):
            return f"has {field!r}, and only text can be trained on"
    if turn.get("train_detail"):
        return "has 'train_detail', but a message counts as a whole or not at all"
    calls = _calls(turn, name)
    if isinstance(calls, str):
        return calls
    if calls and role != "assistant":
        return "calls tools, though it is not the assistant's"
    content = "" if calls and name in CALLS else _content(_first(turn, ("content", "value")), calls)
    if isinstance(content, Problem):
        return content.reason
    extra = {k: v for k, v in turn.items() if k not in KNOWN or k in ("name", "tool_call_id")}
    message: Message = {**{k: v for k, v in extra.items() if v is not None}, "role": role}
    message["content"] = content
    if calls:
        message["tool_calls"] = calls
    return _add_marks(message, turn) or _add_reasoning(message, turn) or message


def _add_marks(message: Message, turn: Mapping[str, Any]) -> str | None:
    """Its weight, where the turn has one; returns what is wrong."""
    marked = counted(turn)
    if isinstance(marked, str):
        return marked
    if message["role"] == "assistant":
        if marked is not None:
            message["weight"] = int(marked)
    elif marked:
        return "is marked to be trained on, and only the assistant's are"
    return None


def _add_reasoning(message: Message, turn: Mapping[str, Any]) -> str | None:
    """What was thought, under the name that it has and the usual one; returns what is wrong."""
    for field in REASONING:
        thought = turn.get(field)
        if not thought:
            continue
        if not isinstance(thought, str):
            return f"has {field!r} that is not a string"
        message[field] = message["reasoning_content"] = thought
    return None


def counted(owner: Mapping[str, Any]) -> bool | str | None:
    """Whether what a message or row is marked with lets it count; None without a mark.

    A text says what is wrong.
    """
    found: bool | None = None
    for field in MARKS:
        value = owner.get(field)
        if isinstance(value, str):
            value = {"true": 1, "false": 0, "1": 1, "0": 0}.get(value.lower(), value)
        if value is None or value == "":
            continue
        # An answer's weight is 0 or 1, as a number or as a truth value.
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            return f"has {field!r} {owner[field]!r}; it must be 0 or 1, false or true"
        found = bool(value) and found is not False
    return found


def _content(value: Any, calls: Sequence[Any]) -> str | Problem:
    if isinstance(value, str):
        return value
    if value is None and calls:
        return ""
    if not isinstance(value, list):
        return Problem("has no text")
    texts = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            return Problem(f"has no text alone: it holds a part of the type {kind!r}")
        texts.append(part["text"])
    return "".join(texts)


def _calls(turn: Mapping[str, Any], role: Any) -> list[dict[str, Any]] | str:
    """The tool calls of a message in OpenAI's form; a text says what is wrong."""
    given: Any = parsed(turn.get("tool_calls")) or []
    if not isinstance(given, list):
        return "has 'tool_calls' that are not a list"
    if turn.get("function_call"):
        given = [*given, parsed(turn["function_call"])]
    if role in CALLS:
        value = parsed(_first(turn, ("content", "value")))
        given = [*given, *(value if isinstance(value, list) else [value])]
    found = []
    for call in given:
        call = parsed(call)
        inner = parsed(call.get("function", call)) if isinstance(call, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            return "has a tool call without the name of a function"
        arguments = parsed(inner.get("arguments", inner.get("parameters")))
        made = {"name": inner["name"], "arguments": {} if arguments is None else arguments}
        found.append(
            {**call, "type": "function", "function": made}
            if "function" in call
            else {"type": "function", "function": made}
        )
    return found


def parsed(value: Any) -> Any:
    """What a text of JSON holds, where it holds an object or a list; else the value itself."""
    if not isinstance(value, str):
        return value
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    return found if isinstance(found, dict | list) else value


def read_tools(row: Mapping[str, Any]) -> list[Any] | Problem:
    """The tools that a row offers, from `tools` or the older `functions`."""
    tools, functions = parsed(row.get("tools")) or [], parsed(row.get("functions")) or []
    if not isinstance(tools, list) or not isinstance(functions, list):
        return Problem("'tools' or 'functions' is not a list")
    found = [parsed(tool) for tool in tools]
    found += [{"type": "function", "function": parsed(function)} for function in functions]
    if any(tool_name(tool) is None for tool in found):
        return Problem("'tools' or 'functions' holds something without the name of a function")
    return found


def tool_name(tool: Any) -> str | None:
    """The name of a tool that a row offers."""
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) and name else None


def strings_in(value: Any) -> Iterator[str]:
    """Every string of nested lists and objects, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings_in(key)
            yield from strings_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings_in(inner)


def without_nulls(value: Any) -> Any:
    """Without the fields that are null: files with columns give every field to every object."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


def _first(turn: Mapping[str, Any], fields: Sequence[str]) -> Any:
    return next((turn[field] for field in fields if turn.get(field) is not None), None)
