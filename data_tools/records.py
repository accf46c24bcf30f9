"""Conversations in the shapes in which instruction data comes, turned into one form.

Which shape a file has is seen in its first row, or said by the user. A field of a row that changes
what is taught is used as its format means it, or makes the row a problem: none is left out in
silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_tools.columns import ColumnMap, columns_of, map_row
from data_tools.inputs import InputFile, cut_into_units
from data_tools.messages import (
    MARKS,
    MEDIA,
    REASONING,
    Conversation,
    counted,
    parsed,
    read_messages,
    read_tools,
)
from data_tools.readers import Problem, ReadOptions, read_rows
from fastmix_mega.errors import UserError

TRAIN_ON = ("all", "last")
"""Which turns of the assistant's count: all, or those after the last message of the user's."""


@dataclass(frozen=True)
class Chat:
    """A conversation and the tools that it offers."""

    messages: Conversation
    tools: list[Any] = field(default_factory=list)


def _messages(row: dict[str, Any]) -> Conversation | Problem:
    """OpenAI: {"messages": [{"role": "user", "content": "..."}, ...]}."""
    return read_messages(row.get("messages"), "messages")


def _conversations(row: dict[str, Any]) -> Conversation | Problem:
    """ShareGPT: {"conversations": [{"from": "human", "value": "..."}, ...], "system": "..."}."""
    return read_messages(row.get("conversations"), "conversations")


def _prompt(row: dict[str, Any]) -> Conversation | Problem:
    """{"prompt": "...", "completion": "..."}; either may be a list of messages."""
    turns: Conversation = []
    for name, role in (("prompt", "user"), ("completion", "assistant")):
        value = row.get(name)
        given = value if isinstance(value, list) else [{"role": role, "content": value}]
        found = read_messages(given, name)
        if isinstance(found, Problem):
            return found
        # Answers inside a prompt are part of the question.
        turns += [turn | {"weight": 0} for turn in found] if name == "prompt" else found
    return _with_history(row, _with_reasoning(row, turns))


def _alpaca(row: dict[str, Any]) -> Conversation | Problem:
    """{"instruction": "...", "input": "...", "output": "..."}; the input may be missing."""
    instruction, further = row.get("instruction"), row.get("input") or ""
    context = row.get("context") or ""
    if further and context:
        return Problem("'input' and 'context' are both given; leave one out with --map")
    further = further or context
    if not isinstance(instruction, str) or not isinstance(further, str):
        return Problem("'instruction' or 'input' is not a string")
    question = f"{instruction}\n\n{further}" if further else instruction
    return _pair(row, question, "output")


def _question(row: dict[str, Any]) -> Conversation | Problem:
    """{"question": "...", "answer": "..."}, with or without the "context" that is asked about."""
    question, context = row.get("question"), row.get("context") or ""
    for name in ("choices", "options"):
        if parsed(row.get(name)):
            return Problem(
                f"{name!r} makes it a multiple-choice question, for preprocess_choices; "
                f"--map {name}= leaves the column out"
            )
    if context and isinstance(question, str) and isinstance(context, str):
        question = f"{context}\n\n{question}"
    elif context:
        return Problem("'context' is not a string")
    return _pair(row, question, "answer")


def _pair(row: dict[str, Any], question: Any, name: str) -> Conversation | Problem:
    answer = row.get(name)
    if not isinstance(question, str) or not isinstance(answer, str):
        return Problem(f"the question or {name!r} is not a string")
    pair = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return _with_history(row, _with_reasoning(row, pair))


def _with_reasoning(row: dict[str, Any], turns: Conversation) -> Conversation | Problem:
    """What was thought before the last answer, where the row has a column for it."""
    for name in REASONING:
        thought = row.get(name)
        if not thought:
            continue
        if not isinstance(thought, str):
            return Problem(f"{name!r} is not a string")
        if turns[-1]["role"] == "assistant":
            turns = [*turns[:-1], turns[-1] | {"reasoning_content": thought}]
    return turns


def _with_history(row: dict[str, Any], turns: Conversation | Problem) -> Conversation | Problem:
    """Earlier questions and answers, [["...", "..."], ...]; these answers count too."""
    history = parsed(row.get("history")) or []
    if isinstance(turns, Problem) or not history:
        return turns
    earlier: Conversation = []
    for pair in history if isinstance(history, list) else [None]:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            return Problem("'history' is not a list of pairs of a question and an answer")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            if not isinstance(text, str):
                return Problem("'history' holds something that is not a string")
            earlier.append({"role": role, "content": text})
    return [*earlier, *turns]


@dataclass(frozen=True)
class Shape:
    """One form of rows."""

    needs: tuple[str, ...]
    """The fields by which it is known."""
    read: Callable[[dict[str, Any]], Conversation | Problem]
    uses: tuple[str, ...] = ()
    """What else it reads."""


_PAIR = ("history", *REASONING)
SHAPES = {
    "messages": Shape(("messages",), _messages),
    "conversations": Shape(("conversations",), _conversations),
    "prompt": Shape(("prompt", "completion"), _prompt, _PAIR),
    "alpaca": Shape(("instruction", "output"), _alpaca, ("input", "context", *_PAIR)),
    "question": Shape(("question", "answer"), _question, ("context", "choices", "options", *_PAIR)),
}
"""By name; the first one that fits is taken."""
_SYSTEM = ("system", "system_prompt")
_UNSUPPORTED = ("documents", "chat_template_kwargs")
"""What templates of transformers can be given, which nobody has asked for yet."""
_COMMON = (*_SYSTEM, "tools", "functions", *MARKS, *MEDIA, *_UNSUPPORTED)
FIELDS = tuple(
    dict.fromkeys(
        name for shape in SHAPES.values() for name in (*shape.needs, *shape.uses, *_COMMON)
    )
)
"""All fields that any shape reads."""


def fields_of(shape: str) -> frozenset[str]:
    """The fields that rows of a shape are read by."""
    return frozenset((*SHAPES[shape].needs, *SHAPES[shape].uses, *_COMMON))


def conversation_of(row: dict[str, Any], shape: str, train_on: str = "all") -> Chat | Problem:
    """The conversation of a row, or why it has none.

    Every content is a string and every assistant's says something or calls a tool; at least one
    assistant's message counts (`weight` 0 marks those that do not).

    Args:
        row: with the fields' own names.
        shape: of `SHAPES`.
        train_on: of `TRAIN_ON`.
    """
    missing = [name for name in SHAPES[shape].needs if row.get(name) is None]
    if missing:
        return Problem(f"not an object with the key {missing[0]!r}")
    refused = _refused(row)
    if refused is not None:
        return Problem(refused)
    found = SHAPES[shape].read(row)
    found = found if isinstance(found, Problem) else _with_system(row, found)
    tools = read_tools(row)
    for part in (found, tools):
        if isinstance(part, Problem):
            return part
    assert not isinstance(found, Problem)
    assert not isinstance(tools, Problem)
    if train_on == "last":
        found = _last_turn_alone(found)
    answers = [turn for turn in found if turn["role"] == "assistant"]
    if any(not turn["content"] and not turn.get("tool_calls") for turn in answers):
        return Problem("an answer is empty")
    if not any(turn.get("weight", 1) for turn in answers):
        return Problem("no message of the assistant's counts")
    return Chat(found, tools)


def _refused(row: dict[str, Any]) -> str | None:
    """Why a row cannot be trained on, whatever its messages say."""
    for name in MEDIA:
        if parsed(row.get(name)):
            return f"the row has {name!r}, and only text can be trained on"
    for name in _UNSUPPORTED:
        if parsed(row.get(name)):
            return f"the row has {name!r}, which are not supported; --map {name}= leaves them out"
    marked = counted(row)
    if isinstance(marked, str):
        return f"the row {marked}; --map leaves a column out that means something else (label=)"
    if marked is False:
        name = next(n for n in MARKS if row.get(n) is not None and not counted({n: row[n]}))
        return f"the row is marked not to be trained on ({name!r} is {row[name]!r})"
    return None


def _with_system(row: dict[str, Any], turns: Conversation) -> Conversation | Problem:
    for name in _SYSTEM:
        system = row.get(name)
        if not system:
            continue
        if not isinstance(system, str):
            return Problem(f"{name!r} is not a string")
        if turns[0]["role"] != "system":
            turns = [{"role": "system", "content": system}, *turns]
        elif turns[0]["content"] != system:
            return Problem(f"{name!r} is another text than that of the first message")
    return turns


def _last_turn_alone(turns: Conversation) -> Conversation:
    answers = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    if not answers:
        return turns
    asked = [n for n, turn in enumerate(turns[: answers[-1]]) if turn["role"] == "user"]
    first = asked[-1] if asked else 0
    return [
        turn | {"weight": 0} if turn["role"] == "assistant" and place < first else turn
        for place, turn in enumerate(turns)
    ]


def shape_of(file: InputFile, options: ReadOptions, mapping: ColumnMap = ()) -> str:
    """Which shape a file has, by its first row.

    Raises:
        UserError: for plain text, and for a row that fits none.
    """
    if file.kind == "text":
        raise UserError(
            f"{file.path} is plain text, which holds no conversations; give JSONL or Parquet"
        )
    for unit in cut_into_units([file], "line"):
        for row in read_rows(file, unit, options, (*FIELDS, *columns_of(mapping))):
            if isinstance(row, Problem):
                continue
            mapped = map_row(row, mapping)
            shape = _fitting(mapped)
            if shape is None:
                shown = ", ".join(list(mapped)[:10]) or "none that is known"
                known = "; ".join(f"{name}: {', '.join(s.needs)}" for name, s in SHAPES.items())
                raise UserError(
                    f"{file.path}: its first row (fields: {shown}) is no conversation; known are "
                    f"{known}; --map calls columns by these names"
                )
            return shape
    # Only bad lines, or none at all: whatever they are told as, they are told.
    return next(iter(SHAPES))


def _fitting(row: dict[str, Any]) -> str | None:
    def has(names: Sequence[str]) -> bool:
        return all(row.get(name) is not None for name in names)

    return next((name for name, shape in SHAPES.items() if has(shape.needs)), None)
