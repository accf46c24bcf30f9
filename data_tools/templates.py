"""Chat templates: how a conversation becomes the text that a model reads.

`plain` needs no special tokens but the tokenizer's end-of-document token, which ends every answer:

    User:
    What is two and two?
    Assistant:
    Four.</s>

A line of a message that could be taken for such a heading gets a backslash before it, so that
`parse_plain` gives the conversation back. `raw` writes the messages one after the other with
nothing between them, and the end token after every answer. Hugging Face's templates are in
`hf_template`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from data_tools.hf_template import HuggingFaceTemplate, find_template
from data_tools.messages import REASONING, Conversation, Message
from data_tools.pieces import Piece
from data_tools.readers import Problem
from fastmix_mega.data.tokenizer import Tokenizer

HEADINGS = {"system": "System:", "user": "User:", "assistant": "Assistant:", "tool": "Tool:"}
_HEADING_LINE = re.compile(rf"^(\\*(?:{'|'.join(HEADINGS.values())}))$", re.MULTILINE)
_ESCAPED_LINE = re.compile(rf"^\\(\\*(?:{'|'.join(HEADINGS.values())}))$", re.MULTILINE)


class ChatTemplate(Protocol):
    name: str
    """For the manifest: `plain`, `raw`, or a SHA-256."""
    spells_tokens: bool
    """Whether the text spells special tokens that must become those tokens."""
    notes: Counter[str]
    """What the user should know of what was rendered so far, and of how many conversations."""

    def render(
        self, conversation: Conversation, tools: Sequence[Any] = ()
    ) -> list[Piece] | Problem: ...


class _ContentTemplate:
    """Writes contents alone, without special tokens."""

    name: str
    spells_tokens = False

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()

    def render(
        self, conversation: Conversation, tools: Sequence[Any] = ()
    ) -> list[Piece] | Problem:
        problem = _without_place(conversation, tools, self.name, self.notes)
        return self._pieces(conversation) if problem is None else problem

    def _pieces(self, conversation: Conversation) -> list[Piece] | Problem:
        raise NotImplementedError


class PlainTemplate(_ContentTemplate):
    """See the module's docstring."""

    name = "plain"

    def _pieces(self, conversation: Conversation) -> list[Piece]:
        pieces: list[Piece] = []
        for turn in conversation:
            heading, content = HEADINGS[turn["role"]], _HEADING_LINE.sub(r"\\\1", turn["content"])
            if turn["role"] == "assistant":
                pieces += [Piece(f"{heading}\n"), _answer(content, turn)]
            else:
                pieces.append(Piece(f"{heading}\n{content}\n"))
        return pieces


class RawTemplate(_ContentTemplate):
    """Messages as they are, for completions and for models that know no headings."""

    name = "raw"

    def _pieces(self, conversation: Conversation) -> list[Piece] | Problem:
        if not conversation[0]["content"] or conversation[0]["role"] == "assistant":
            return Problem("an answer without a prompt has nothing to follow from (raw template)")
        return [
            _answer(turn["content"], turn)
            if turn["role"] == "assistant"
            else Piece(turn["content"])
            for turn in conversation
        ]


def _without_place(
    conversation: Conversation, tools: Sequence[Any], name: str, notes: Counter[str]
) -> Problem | None:
    """What a template that writes contents alone would leave out."""
    found = "tools" if tools else None
    for turn in conversation:
        if turn.get("tool_calls"):
            found = "a call of a tool"
        elif any(turn.get(field) for field in REASONING):
            found = "reasoning"
    if found is not None:
        return Problem(
            f"it has {found}, for which the template {name!r} has no place; --template hf or a "
            "file may have one"
        )
    for field in ("name", "tool_call_id"):
        if any(field in turn for turn in conversation):
            notes[f"the template {name!r} does not write the messages' field {field!r}"] += 1
    return None


def _answer(text: str, turn: Message) -> Piece:
    return Piece(text, counts=bool(turn.get("weight", 1)), ends=True)


def parse_plain(turns: Sequence[str]) -> Conversation:
    """The conversation that `PlainTemplate` wrote.

    Args:
        turns: the text up to each end token, and what follows the last one if there is something.
    """
    roles = {heading: role for role, heading in HEADINGS.items()}
    conversation: Conversation = []
    for text in turns:
        # Some tokenizers put a space before a text; a heading has none of its own.
        text = text.removeprefix(" ")
        for part in re.split(rf"^(?=(?:{'|'.join(roles)})$)", text, flags=re.MULTILINE)[1:]:
            heading, _, content = part.partition("\n")
            if roles[heading] != "assistant":
                content = content.removesuffix("\n")
            message: Message = {
                "role": roles[heading],
                "content": _ESCAPED_LINE.sub(r"\1", content),
            }
            conversation.append(message)
    return conversation


def load_template(name: str, tokenizer: Tokenizer, special_text: str = "keep") -> ChatTemplate:
    """The template that `--template` names.

    Args:
        name: `plain`, `raw`, `hf` (the one beside the tokenizer), or a .jinja file or
            tokenizer_config.json.
        tokenizer: of the run.
        special_text: `encode` if messages may spell special tokens.

    Raises:
        UserError: if it cannot be read or does not fit the tokenizer.
    """
    if name == "plain":
        return PlainTemplate()
    if name == "raw":
        return RawTemplate()
    path = find_template(tokenizer) if name == "hf" else Path(name)
    return HuggingFaceTemplate(path, tokenizer, protect=special_text != "encode")
