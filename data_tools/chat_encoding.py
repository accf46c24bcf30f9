"""Tokens and loss masks of conversations: what a worker of `preprocess --mode sft` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.fields import utf8_size
from data_tools.inputs import InputFile, Unit
from data_tools.readers import Problem, ReadOptions, read_rows
from data_tools.records import FIELDS, conversation_of
from data_tools.templates import ChatTemplate, Piece, load_template
from fastmix_mega.data.tokenizer import Ids, Tokenizer
from fastmix_mega.errors import UserError

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class ChatOptions:
    """How conversations are read and written; plain data."""

    template: str = "plain"
    """`plain`, `raw`, `hf`, or a file."""
    shapes: tuple[str, ...] = ()
    """Of every input file; see `data_tools.records`."""


class ChatEncoder:
    """Reads conversations and encodes them.

    Args:
        tokenizer: of the run.
        options: see there.
        bos: whether the tokenizer's first token starts every conversation.

    Raises:
        UserError: if the template cannot be used.
    """

    def __init__(self, tokenizer: Tokenizer, options: ChatOptions, bos: bool) -> None:
        self._tokenizer = tokenizer
        self._options = options
        self._template: ChatTemplate = load_template(options.template, tokenizer)
        self._start = [tokenizer.bos] if bos else []
        if bos and self._template.spells_tokens:
            raise UserError("--bos: a Hugging Face template writes its own first token")

    def read(
        self, file: InputFile, number: int, unit: Unit, read: ReadOptions
    ) -> Iterator[list[Piece] | Problem]:
        """A conversation's text in pieces, or a Problem, for every line or row of a unit.

        `number` is the file's place among the inputs.
        """
        shape = self._options.shapes[number]
        for row in read_rows(file, unit, read, FIELDS):
            found = row if isinstance(row, Problem) else conversation_of(row, shape)
            pieces = found if isinstance(found, Problem) else self._template.render(found)
            if not isinstance(pieces, Problem) and text_size(pieces) > read.largest:
                pieces = Problem(f"longer than {read.largest:,} bytes")
            yield pieces

    def encode(self, conversations: Sequence[list[Piece]]) -> list[tuple[Ids, Mask]]:
        """Token ids and loss mask of each conversation; its first token never counts.

        Raises:
            UserError: for a conversation of which no token counts.
        """
        spelled = self._template.spells_tokens
        encoded = self._whole(conversations) if spelled else self._by_piece(conversations)
        for pieces, (_, mask) in zip(conversations, encoded, strict=True):
            # Nothing comes before it that could predict it.
            mask[:1] = 0
            if not mask.any():
                start = "".join(piece.text for piece in pieces)[:60]
                raise UserError(
                    f"the conversation that starts {start!r} has no token that counts in the loss; "
                    "does the template mark the answers?"
                )
        return encoded

    def _by_piece(self, conversations: Sequence[list[Piece]]) -> list[tuple[Ids, Mask]]:
        """Pieces on their own: no token spans a question and its answer, whatever they say."""
        texts = [piece.text for pieces in conversations for piece in pieces]
        found = iter(self._tokenizer.encode_literally(texts))
        end = np.array([self._tokenizer.eod], np.int32)
        result = []
        for pieces in conversations:
            ids: list[Ids] = [np.array(self._start, np.int32)]
            masks: list[Mask] = [np.zeros(len(self._start), np.uint8)]
            for piece in pieces:
                part = next(found)
                ids += [part, end] if piece.ends else [part]
                masks.append(np.full(len(part) + piece.ends, piece.counts, np.uint8))
            result.append((np.concatenate(ids), np.concatenate(masks)))
        return result

    def _whole(self, conversations: Sequence[list[Piece]]) -> list[tuple[Ids, Mask]]:
        """The whole text at once, as `transformers` does; a token counts if it holds a character
        that does."""
        texts = ["".join(piece.text for piece in pieces) for pieces in conversations]
        result = []
        for pieces, (ids, places) in zip(
            conversations, self._tokenizer.encode_with_places(texts), strict=True
        ):
            counted = np.zeros(1 + sum(len(piece.text) for piece in pieces), np.int64)
            position = 0
            for piece in pieces:
                counted[position + 1 : position + 1 + len(piece.text)] = piece.counts
                position += len(piece.text)
            before = np.cumsum(counted)  # [characters + 1] that count before each place
            mask = before[places[:, 1]] > before[places[:, 0]]
            result.append((ids, mask.astype(np.uint8)))
        return result


def text_size(pieces: Sequence[Piece]) -> int:
    """Bytes in UTF-8."""
    return sum(utf8_size(piece.text) for piece in pieces)
