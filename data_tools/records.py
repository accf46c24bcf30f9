"""Conversations in the shapes in which instruction data comes, turned into one: a list of messages.

A message is an object with a `role` (system, user, assistant or tool) and a `content`. Which shape
a file has is seen in its first row, or said by the user.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from data_tools.inputs import InputFile, cut_into_units
from data_tools.readers import Problem, ReadOptions, read_rows
from fastmix_mega.errors import UserError

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
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""What data calls the speakers, and what they are called here."""


def _messages(row: dict[str, Any]) -> Conversation | Problem:
    """OpenAI: {"messages": [{"role": "user", "content": "..."}, ...]}."""
    return _turns(row.get("messages"), "messages")


def _conversations(row: dict[str, Any]) -> Conversation | Problem:
    """ShareGPT: {"conversations": [{"from": "human", "value": "..."}, ...], "system": "..."}."""
    found = _turns(row.get("conversations"), "conversations")
    system = row.get("system")
    if isinstance(found, Problem) or not system:
        return found
    if not isinstance(system, str):
        return Problem("'system' is not a string")
    return [{"role": "system", "content": system}, *found]


def _prompt(row: dict[str, Any]) -> Conversation | Problem:
    """{"prompt": "...", "completion": "..."}; either may be a list of messages."""
    turns: Conversation = []
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        value = row.get(field)
        found = (
            _turns(value, field)
            if isinstance(value, list)
            else _turns([{"role": role, "content": value}], field)
        )
        if isinstance(found, Problem):
            return found
        # Answers inside a prompt are part of the question.
        turns += [turn | {"weight": 0} for turn in found] if field == "prompt" else found
    return turns


def _alpaca(row: dict[str, Any]) -> Conversation | Problem:
    """{"instruction": "...", "input": "...", "output": "..."}; the input may be missing."""
    instruction, further = row.get("instruction"), row.get("input") or ""
    if not isinstance(instruction, str) or not isinstance(further, str):
        return Problem("'instruction' or 'input' is not a string")
    question = f"{instruction}\n\n{further}" if further else instruction
    return _pair(question, row.get("output"), "output")


def _question(row: dict[str, Any]) -> Conversation | Problem:
    """{"question": "...", "answer": "..."}."""
    return _pair(row.get("question"), row.get("answer"), "answer")


def _pair(question: Any, answer: Any, field: str) -> Conversation | Problem:
    if not isinstance(question, str) or not isinstance(answer, str):
        return Problem(f"the question or {field!r} is not a string")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


SHAPES: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], Conversation | Problem]]] = {
    "messages": (("messages",), _messages),
    "conversations": (("conversations",), _conversations),
    "prompt": (("prompt", "completion"), _prompt),
    "alpaca": (("instruction", "output"), _alpaca),
    "question": (("question", "answer"), _question),
}
"""By name: the fields by which a shape is known, and what makes a conversation of a row. The first
one that fits is taken."""
FIELDS = (
    *("messages", "conversations", "system", "prompt", "completion"),
    *("instruction", "input", "output", "question", "answer"),
)
"""All fields that any shape reads."""


def conversation_of(row: dict[str, Any], shape: str) -> Conversation | Problem:
    """The conversation of a row, or why it has none.

    Every content is a string and every assistant's is not empty; at least one assistant's message
    counts (`"weight": 0` marks those that do not, as in OpenAI's files).
    """
    fields, read = SHAPES[shape]
    missing = [field for field in fields if row.get(field) is None]
    if missing:
        return Problem(f"not an object with the key {missing[0]!r}")
    found = read(row)
    if isinstance(found, Problem):
        return found
    answers = [turn for turn in found if turn["role"] == "assistant"]
    if any(not turn["content"] for turn in answers):
        return Problem("an answer is empty")
    if not any(turn.get("weight", 1) for turn in answers):
        return Problem("no message of the assistant's counts")
    return found


def _turns(turns: Any, field: str) -> Conversation | Problem:
    if not isinstance(turns, list) or not turns:
        return Problem(f"{field!r} is not a list of messages")
    found: Conversation = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            return Problem(f"message {number} of {field!r} is not an object")
        name = turn.get("role", turn.get("from"))
        role = ROLES.get(name) if isinstance(name, str) else None
        if role is None:
            return Problem(f"message {number} of {field!r} has the unknown role {name!r}")
        content = _content(turn.get("content", turn.get("value")))
        if content is None:
            return Problem(f"message {number} of {field!r} has no text")
        if turn.get("tool_calls"):
            return Problem(f"message {number} of {field!r} calls tools, which is not supported")
        message: Message = {"role": role, "content": content}
        if turn.get("weight") is not None:
            if turn["weight"] not in (0, 1):
                return Problem(f"message {number} of {field!r}: a weight must be 0 or 1")
            message["weight"] = int(turn["weight"])
        found.append(message)
    return found


def _content(value: Any) -> str | None:
    if isinstance(value, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
            for part in value
        ]
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(parts) else None
    return value if isinstance(value, str) else None


def shape_of(file: InputFile, options: ReadOptions) -> str:
    """Which shape a file has, by its first row.

    Raises:
        UserError: for plain text, and for a row that fits none.
    """
    if file.kind == "text":
        raise UserError(
            f"{file.path} is plain text, which holds no conversations; give JSONL or Parquet"
        )
    for unit in cut_into_units([file], "line"):
        for row in read_rows(file, unit, options, FIELDS):
            if isinstance(row, Problem):
                continue
            shape = _fitting(row)
            if shape is None:
                shown = ", ".join(list(row)[:10]) or "none that is known"
                raise UserError(
                    f"{file.path}: its first row (fields: {shown}) is no conversation; known are "
                    + "; ".join(f"{name}: {', '.join(need)}" for name, (need, _) in SHAPES.items())
                )
            return shape
    # Only bad lines, or none at all: whatever they are told as, they are told.
    return next(iter(SHAPES))


def _fitting(row: dict[str, Any]) -> str | None:
    def has(fields: Sequence[str]) -> bool:
        return all(row.get(field) is not None for field in fields)

    return next((name for name, (fields, _) in SHAPES.items() if has(fields)), None)
