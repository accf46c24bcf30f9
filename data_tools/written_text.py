"""Whether a chat template wrote what it was given: an answer that is left out teaches nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from data_tools.messages import REASONING, Conversation, Message, strings_in, tool_name
from data_tools.readers import Problem

_OPENING = re.compile(r"^\s*<[^<>\s]+>")
_THOUGHT_ENDS = "</think>"


def left_out(
    conversation: Conversation, tools: Sequence[Any], whole: str, counted: str
) -> Problem | None:
    """What of a conversation is not in its text; None if nothing is missing.

    White space may be another, and texts may be written as JSON.

    Args:
        conversation: what the template was given.
        tools: likewise.
        whole: the text.
        counted: what counts of it.
    """
    text, learnt = _squeeze(whole), _squeeze(counted)
    learnt_so_far = 0
    for number, turn in enumerate(conversation, 1):
        counts = turn["role"] == "assistant" and bool(turn.get("weight", 1))
        place, where = (learnt, "what counts of its") if counts else (text, "the")
        begin = learnt_so_far if counts else 0
        for what, wanted in _parts(turn, counts):
            end = _end_of(wanted, place, begin)
            if end is None and counts and _end_of(wanted, text) is not None:
                # A prompt may open the thought that an answer begins with.
                end = _end_of(_OPENING.sub("", wanted), place, begin)
            if end is None:
                return Problem(
                    f"the chat template leaves {what} of message {number} ({turn['role']}) out of "
                    f"{where} text"
                )
            if counts and what == "the text":
                learnt_so_far = end
    for tool in tools:
        if _end_of(tool_name(tool) or "", text) is None:
            return Problem(f"the chat template leaves out the tool {tool_name(tool)!r}")
    return None


def _parts(turn: Message, counts: bool) -> Iterator[tuple[str, str]]:
    """What must be written of a message, and what that is."""
    content = turn["content"]
    if turn["role"] == "assistant" and not counts:
        # Templates leave out what was thought in earlier turns; it is not learnt from there.
        yield "the text", content.rpartition(_THOUGHT_ENDS)[2]
        return
    yield "the text", content
    for field in REASONING:
        if isinstance(turn.get(field), str):
            yield "the reasoning", turn[field]
    for call in turn.get("tool_calls", ()):
        yield "a tool call", call["function"]["name"]
        for text in strings_in(call["function"]["arguments"]):
            yield "the arguments of a tool call", text


def _end_of(wanted: str, squeezed: str, begin: int = 0) -> int | None:
    """Where a text that was looked for ends; None if it is not there."""
    for form in (wanted, json.dumps(wanted, ensure_ascii=False)[1:-1], json.dumps(wanted)[1:-1]):
        short = _squeeze(form)
        place = squeezed.find(short, begin)
        if place >= 0:
            return place + len(short)
    return None


def _squeeze(text: str) -> str:
    return "".join(text.split())
