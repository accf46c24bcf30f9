"""Tokens and loss masks of conversations: what a worker of `preprocess --mode sft` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.columns import ColumnMap, columns_of, map_row
from data_tools.fields import utf8_size
from data_tools.inputs import InputFile, Unit
from data_tools.messages import KNOWN, strings_in, without_nulls
from data_tools.pieces import Piece
from data_tools.readers import Problem, ReadOptions, column_names, read_rows
from data_tools.records import FIELDS, Chat, conversation_of, fields_of
from data_tools.special_text import SpecialText
from data_tools.templates import ChatTemplate, load_template
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.data.tokenizer_backend import After, Ids, Places
from fastmix_mega.errors import UserError

Mask = NDArray[np.uint8]
Encoded = tuple[Ids, Mask]
_NO_TOKEN = "the tokenizer has no token for the text of an answer"


@dataclass(frozen=True)
class ChatOptions:
    """How conversations are read and written; plain data."""

    template: str = "plain"
    """`plain`, `raw`, `hf`, or a file."""
    shapes: tuple[str, ...] = ()
    """Of every input file; see `data_tools.records`."""
    mapping: ColumnMap = ()
    """Which columns are taken for which fields."""
    train_on: str = "all"
    """Of `data_tools.records.TRAIN_ON`."""
    special_text: str = "keep"
    """What becomes of special tokens that messages spell; see `data_tools.special_text`."""


class ChatEncoder:
    """Reads conversations and encodes them.

    Args:
        tokenizer: of the run.
        options: see there.
        bos: whether the tokenizer's first token starts every conversation.

    Attributes:
        notes: what the user should know, and how often that was so.

    Raises:
        UserError: if the template cannot be used.
    """

    def __init__(self, tokenizer: Tokenizer, options: ChatOptions, bos: bool) -> None:
        self._tokenizer = tokenizer
        self._options = options
        self._template: ChatTemplate = load_template(
            options.template, tokenizer, options.special_text
        )
        self.notes: Counter[str] = self._template.notes
        self._special = SpecialText(tokenizer, options.special_text, self.notes)
        self._start = [tokenizer.bos] if bos else []
        if bos and self._template.spells_tokens:
            raise UserError("--bos: a Hugging Face template writes its own first token")

    def read(
        self, file: InputFile, number: int, unit: Unit, read: ReadOptions
    ) -> Iterator[list[Piece] | Problem]:
        """A conversation's text in pieces, or a Problem, for every line or row of a unit.

        `number` is the file's place among the inputs.
        """
        shape, mapping = self._options.shapes[number], self._options.mapping
        wanted = (*FIELDS, *columns_of(mapping))
        tabular = file.kind not in ("jsonl", "array")
        columns = column_names(file, unit, read) if tabular else []
        unread = [name for name in columns if name not in wanted]
        used = fields_of(shape)
        for row in read_rows(file, unit, read, wanted):
            if isinstance(row, Problem):
                yield row
                continue
            # Files with columns give every field to every row.
            mapped = map_row(without_nulls(row) if tabular else row, mapping)
            self.notes.update(f"column {name!r} is not used" for name in unread)
            self.notes.update(
                f"column {name!r} is not used"
                for name, value in mapped.items()
                if name not in used and value is not None
            )
            pieces = self._pieces(mapped, shape)
            if not isinstance(pieces, Problem) and text_size(pieces) > read.largest:
                pieces = Problem(f"longer than {read.largest:,} bytes")
            yield pieces

    def _pieces(self, row: dict[str, object], shape: str) -> list[Piece] | Problem:
        chat = conversation_of(row, shape, self._options.train_on)
        if isinstance(chat, Problem):
            return chat
        texts = list(strings_in([chat.messages, chat.tools]))
        refused = self._special.refuse(texts)
        if refused is not None:
            return refused
        self._special.note(texts)
        self._note_unknown(chat)
        return self._template.render(chat.messages, chat.tools)

    def _note_unknown(self, chat: Chat) -> None:
        reader = "only a template may use it" if self._template.spells_tokens else "it is not used"
        for name in {name for turn in chat.messages for name in turn if name not in KNOWN}:
            self.notes[f"messages have the field {name!r}: {reader}"] += 1

    def encode(self, conversations: Sequence[list[Piece]]) -> list[Encoded | Problem]:
        """Token ids and loss mask of each conversation; its first token never counts.

        A Problem where an answer has no token that counts.
        """
        if self._template.spells_tokens:
            encoded = self._whole(conversations)
        else:
            encoded = self._by_turn(conversations)
        for place, found in enumerate(encoded):
            if isinstance(found, Problem):
                continue
            # Nothing comes before it that could predict it.
            found[1][:1] = 0
            if not found[1].any():
                encoded[place] = Problem(
                    "no token of it counts in the loss; does the template mark the answers?"
                )
        return encoded

    def _by_turn(self, conversations: Sequence[list[Piece]]) -> list[Encoded | Problem]:
        """Each prompt as one text, and the answer as what goes on from it: no token spans both."""
        turns = [list(_turns(pieces)) for pieces in conversations]
        flat = [turn for each in turns for turn in each]
        prompts = iter(self._special.encode([turn.prompt for turn in flat]))
        answers = self._answers(flat)
        end = np.array([self._tokenizer.eod], np.int32)
        result: list[Encoded | Problem] = []
        for each in turns:
            ids: list[Ids] = [np.array(self._start, np.int32)]
            masks: list[Mask] = [np.zeros(len(self._start), np.uint8)]
            lost = False
            for turn in each:
                prompt = next(prompts)
                ids.append(prompt)
                masks.append(np.zeros(len(prompt), np.uint8))
                if turn.answer is not None:
                    answer = next(answers)
                    ids += [answer, end]
                    masks.append(np.full(len(answer) + 1, turn.answer.counts, np.uint8))
                    lost = lost or bool(turn.answer.counts and turn.answer.text and not len(answer))
            whole = np.concatenate(ids), np.concatenate(masks)
            result.append(Problem(_NO_TOKEN) if lost else whole)
        return result

    def _answers(self, turns: Sequence[_Turn]) -> Iterator[Ids]:
        """Token ids of the answers, each as it goes on from its prompt."""
        groups: dict[After | None, list[str]] = {None: [], "space": [], "text": []}
        order: list[After | None] = []
        for turn in turns:
            if turn.answer is not None:
                after: After | None = "space" if turn.prompt[-1:].isspace() else "text"
                order.append(after if turn.prompt else None)
                groups[order[-1]].append(turn.answer.text)
        found = {
            after: iter(self._special.encode(texts, after)) if texts else iter(())
            for after, texts in groups.items()
        }
        for after in order:
            yield next(found[after])

    def _whole(self, conversations: Sequence[list[Piece]]) -> list[Encoded | Problem]:
        """The whole text at once, as `transformers` does; a token counts if it holds a character
        that does."""
        texts = ["".join(piece.text for piece in pieces) for pieces in conversations]
        literal = [_literal_spans(pieces) for pieces in conversations]
        result: list[Encoded | Problem] = []
        for pieces, encoded in zip(
            conversations, self._tokenizer.encode_marked(texts, literal), strict=True
        ):
            if encoded is None:
                result.append(
                    Problem(
                        "a message spells a special token, which the tokenizer cannot keep as text"
                    )
                )
                continue
            ids, places = encoded
            mask = _mask(pieces, places)
            result.append((ids, mask))
        return result


@dataclass(frozen=True)
class _Turn:
    """What a model is given, and what it writes up to the end token."""

    prompt: str
    answer: Piece | None


def _turns(pieces: Sequence[Piece]) -> Iterator[_Turn]:
    prompt: list[str] = []
    for piece in pieces:
        if piece.ends:
            yield _Turn("".join(prompt), piece)
            prompt = []
        else:
            prompt.append(piece.text)
    if prompt:
        yield _Turn("".join(prompt), None)


def _literal_spans(pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    position = 0
    for piece in pieces:
        found += [(position + start, position + end) for start, end in piece.literal]
        position += len(piece.text)
    return found


def _mask(pieces: Sequence[Piece], places: Places) -> Mask:
    """Whether each token holds a character that counts.

    A token of no characters of its own belongs to those between its neighbours, or else to the
    token after it.
    """
    counted = np.zeros(1 + sum(len(piece.text) for piece in pieces), np.int64)
    position = 0
    for piece in pieces:
        counted[position + 1 : position + 1 + len(piece.text)] = piece.counts
        position += len(piece.text)
    before = np.cumsum(counted)  # [characters + 1] that count before each place
    starts, ends = places[:, 0].copy(), places[:, 1].copy()
    for token in np.flatnonzero(starts >= ends)[::-1]:
        last = ends[token - 1] if token else 0
        following = starts[token + 1] if token + 1 < len(starts) else position
        if following > last:
            starts[token], ends[token] = last, following
        elif token + 1 < len(starts):
            starts[token], ends[token] = starts[token + 1], ends[token + 1]
    return np.asarray(before[ends] > before[starts], np.uint8)


def text_size(pieces: Sequence[Piece]) -> int:
    """Bytes in UTF-8."""
    return sum(utf8_size(piece.text) for piece in pieces)
