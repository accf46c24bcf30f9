"""Which answer every `{% generation %}` block of a rendered template belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from data_tools.jinja_sandbox import END, STANDS_FOR, START
from data_tools.pieces import Piece
from data_tools.readers import Problem

_NAME = re.compile(f"{STANDS_FOR}([0-9]+){STANDS_FOR}")


def marked_pieces(
    text: str, roles: Sequence[str], counts: Sequence[bool], skeleton: Callable[[], str]
) -> list[Piece] | Problem:
    """The text in pieces, of which the marked ones count if their answer does.

    Args:
        text: rendered, with START and END around what is marked.
        roles: of the messages.
        counts: for each message of the assistant's, whether it does.
        skeleton: renders the same conversation with `name_of(number)` as each message's text, so
            that it can be seen where a message stands whatever the texts are.
    """
    segments = list(_segments(text))
    if counts and not any(marked for _, marked in segments):
        return Problem("the chat template marked nothing for an answer")
    if all(counts):
        return [Piece(part, marked) for part, marked in segments]
    marks = sum(marked for _, marked in segments)
    counted = _by_owner(list(_segments(skeleton())), roles, counts)
    if marks == len(counts) != len(counted):
        counted = list(counts)
    if marks != len(counted):
        return Problem("the chat template marks pieces that cannot be told to belong to an answer")
    answers = iter(counted)
    return [Piece(part, marked and next(answers)) for part, marked in segments]


def name_of(number: int) -> str:
    """What stands for the text of a message in a skeleton."""
    return f"{STANDS_FOR}{number}{STANDS_FOR}"


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


def _by_owner(
    segments: Sequence[tuple[str, bool]], roles: Sequence[str], counts: Sequence[bool]
) -> list[bool]:
    """For each marked segment, whether its answer counts: the one in it, or the one before it, or
    after a question the next one."""
    answers = iter(counts)
    weights = [role == "assistant" and next(answers) for role in roles]
    found: list[bool] = []
    last = -1
    for part, marked in segments:
        numbers = [int(number) for number in _NAME.findall(part)]
        if marked:
            owners = [number for number in numbers if roles[number] == "assistant"]
            if not owners and last >= 0 and roles[last] == "assistant":
                owners = [last]
            elif not owners:
                later = range(last + 1, len(roles))
                owners = [number for number in later if roles[number] == "assistant"][:1]
            found.append(any(weights[number] for number in owners))
        last = max([last, *numbers])
    return found
