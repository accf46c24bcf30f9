"""Which answer every `{% generation %}` block of a rendered template belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from data_tools.jinja_sandbox import END, START
from data_tools.pieces import Piece
from data_tools.readers import Problem


def marked_pieces(
    text: str, messages: Sequence[dict[str, Any]], counts: Sequence[bool]
) -> list[Piece] | Problem:
    """The text in pieces, of which the marked ones count if their answer does.

    Args:
        text: rendered, with START and END around what is marked.
        messages: what was rendered.
        counts: for each message of the assistant's, whether it does.
    """
    segments = list(_segments(text))
    if counts and not any(marked for _, marked in segments):
        return Problem("the chat template marked nothing for an answer")
    if all(counts):
        return [Piece(part, marked) for part, marked in segments]
    if sum(marked for _, marked in segments) == len(counts):
        answers = iter(counts)
        return [Piece(part, marked and next(answers)) for part, marked in segments]
    return _attributed(segments, messages, counts)


def _segments(text: str) -> Iterator[tuple[str, bool]]:
    """Parts of the text and whether they are marked; marks may be nested."""
    depth = 0
    pending = ""
    for part in re.split(f"([{START}{END}])", text):
        if part not in (START, END):
            pending += part
            continue
        new = depth + (1 if part == START else -1)
        if (new > 0) != (depth > 0):
            if pending:
                yield pending, depth > 0
            pending = ""
        depth = new
    if pending:
        yield pending, depth > 0


def _attributed(
    segments: Sequence[tuple[str, bool]],
    messages: Sequence[dict[str, Any]],
    counts: Sequence[bool],
) -> list[Piece] | Problem:
    """By where the messages stand: a block is of the answer in it, else of the one before it."""
    whole = "".join(part for part, _ in segments)
    owners: list[tuple[int, int | None]] = []  # Where a message stands, and which answer it is.
    cursor = answer = 0
    for turn in messages:
        assistant = turn["role"] == "assistant"
        wanted = turn["content"].strip()
        if not wanted and turn.get("tool_calls"):
            wanted = turn["tool_calls"][0]["function"]["name"]
        place = whole.find(wanted, cursor)
        if place < 0:
            return Problem("the chat template writes a message so that it is not found again")
        owners.append((place, answer if assistant else None))
        cursor, answer = place + len(wanted), answer + assistant
    pieces, start = [], 0
    for part, marked in segments:
        end = start + len(part)
        counted = False
        if marked:
            inside = [
                owner for place, owner in owners if start <= place < end and owner is not None
            ]
            before = [owner for place, owner in owners if place < start]
            nearest = before[-1] if before else None
            if nearest is None:
                # After a question: the next answer's.
                later = (o for place, o in owners if place >= start and o is not None)
                nearest = next(later, len(counts) - 1)
            counted = any(counts[n] for n in inside) if inside else counts[nearest]
        pieces.append(Piece(part, counted))
        start = end
    return pieces
