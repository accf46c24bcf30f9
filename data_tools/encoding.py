"""Tokenize one unit of the input into one part: what a worker of `preprocess` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.chat_encoding import ChatEncoder, ChatOptions, text_size
from data_tools.coverage import lost_text
from data_tools.fast_encoding import FastEncoder
from data_tools.fields import Blank, Problem, utf8_size
from data_tools.inputs import InputFile, Unit
from data_tools.parts import Counts, Documents, Marker, PartFile, PartLayout
from data_tools.readers import ReadOptions, read_unit
from data_tools.selection import Selection
from data_tools.special_text import SpecialText
from data_tools.workers import Report
from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError

BATCH_DOCUMENTS, BATCH_BYTES = 256, 1 << 20
"""A batch ends at either: enough to keep the tokenizer's library busy, with flat memory."""


@dataclass(frozen=True)
class TokenOptions:
    """How text becomes tokens."""

    eod: str | None = None
    """The token that ends a document, where the tokenizer's own is not meant."""
    bos: bool = False
    """Whether the tokenizer's first token starts every document."""
    backend: str = "library"
    """What encodes: the tokenizer's own `library`, or `gigatoken`."""
    special_text: str = "keep"
    """What becomes of special tokens that text spells; see `data_tools.special_text`."""


@dataclass(frozen=True)
class EncodeSettings:
    """All that decides what a document becomes."""

    read: ReadOptions = field(default_factory=ReadOptions)
    tokens: TokenOptions = field(default_factory=TokenOptions)
    chat: ChatOptions | None = None
    """None for text."""
    selection: Selection = field(default_factory=Selection)


@dataclass(frozen=True)
class EncodeJob:
    """All that a worker needs; plain data."""

    files: list[InputFile]
    units: list[Unit]
    folder: Path
    tokenizer: Path
    settings: EncodeSettings
    max_bad: int


def part_layout(tokenizer: Tokenizer, settings: EncodeSettings) -> PartLayout:
    """What lies in the parts of a run."""
    drawn = settings.selection.max_tokens is not None
    return PartLayout(token_dtype(tokenizer.vocab_size), settings.chat is not None, drawn)


def make_encoder(job: EncodeJob) -> Callable[[int, Report], Marker]:
    """Load the tokenizer once; the function returned makes the part of a unit."""
    tokenizer = Tokenizer(job.tokenizer, job.settings.tokens.eod)
    kind = _TextEncoder if job.settings.chat is None else _ChatEncoder
    encoder = kind(job, tokenizer)
    layout = part_layout(tokenizer, job.settings)

    def work(number: int, report: Report) -> Marker:
        return _UnitEncoder(job, number, encoder, tokenizer, layout).run(report)

    return work


class Encoded(NamedTuple):
    """A batch of documents as tokens."""

    tokens: NDArray[Any]
    """End to end."""
    lengths: NDArray[np.int32]
    """[documents] tokens of each, 0 for those that are `lost`."""
    mask: NDArray[np.uint8] | None
    """[tokens], of conversations."""
    lost: dict[int, str]
    """Why documents have no tokens, by their place."""


class _TextEncoder:
    """Documents are texts; the end-of-document token follows each."""

    def __init__(self, job: EncodeJob, tokenizer: Tokenizer) -> None:
        self._job, self._tokenizer = job, tokenizer
        options = job.settings.tokens
        self.notes: Counter[str] = Counter()
        self._special = SpecialText(tokenizer, options.special_text, self.notes)
        right = self._special.encode
        self._fast = FastEncoder(tokenizer, right) if options.backend == "gigatoken" else None
        self._encode_texts = right if self._fast is None else self._fast.encode
        dtype = token_dtype(tokenizer.vocab_size)
        self._start = np.array([tokenizer.bos] if options.bos else [], dtype)
        self._end = np.array([tokenizer.eod], dtype)

    def read(self, unit: Unit) -> Iterator[Any | Problem]:
        if self._fast is not None and unit.start == 0:
            self._fast.begin_file()
        for text in read_unit(self._job.files[unit.file], unit, self._job.settings.read):
            refused = None if isinstance(text, Problem) else self._special.refuse((text,))
            yield text if refused is None else refused

    def size(self, document: Any) -> int:
        return utf8_size(document)

    def content(self, document: Any) -> bytes:
        """What tells documents apart."""
        return bytes(document.encode())

    def encode(self, documents: list[Any]) -> Encoded:
        self._special.note(documents)
        encoded = self._encode_texts(documents)
        lost = lost_text(self._tokenizer, documents, encoded)
        arrays: list[NDArray[Any]] = []
        lengths = np.zeros(len(documents), np.int32)
        start, end = self._start, self._end
        around = len(start) + 1
        for place, ids in enumerate(encoded):
            if place not in lost:
                arrays += (start, ids, end) if len(start) else (ids, end)
                lengths[place] = len(ids) + around
        return Encoded(np.concatenate(arrays or [self._end[:0]]), lengths, None, lost)


class _ChatEncoder:
    """Documents are conversations, in pieces of text."""

    def __init__(self, job: EncodeJob, tokenizer: Tokenizer) -> None:
        assert job.settings.chat is not None
        self._job, self._tokenizer = job, tokenizer
        self._encoder = ChatEncoder(tokenizer, job.settings.chat, job.settings.tokens.bos)
        self.notes = self._encoder.notes

    def read(self, unit: Unit) -> Iterator[Any | Problem]:
        file, read = self._job.files[unit.file], self._job.settings.read
        return self._encoder.read(file, unit.file, unit, read)

    def size(self, document: Any) -> int:
        return text_size(document)

    def content(self, document: Any) -> bytes:
        """What tells documents apart."""
        return "\0".join(piece.text for piece in document).encode()

    def encode(self, documents: list[Any]) -> Encoded:
        encoded = self._encoder.encode(documents)
        texts = ["".join(piece.text for piece in document) for document in documents]
        none = np.empty(0, np.int32)
        ids = [none if isinstance(found, Problem) else found[0] for found in encoded]
        lost = lost_text(self._tokenizer, texts, ids)
        lost |= {n: found.reason for n, found in enumerate(encoded) if isinstance(found, Problem)}
        kept = [
            found
            for place, found in enumerate(encoded)
            if place not in lost and not isinstance(found, Problem)
        ]
        lengths = np.array([0 if n in lost else len(each) for n, each in enumerate(ids)], np.int32)
        tokens = np.concatenate([ids for ids, _ in kept] or [none])
        masks = np.concatenate([mask for _, mask in kept] or [np.empty(0, np.uint8)])
        return Encoded(tokens, lengths, masks, lost)


class _UnitEncoder:
    """Makes the part of one unit."""

    def __init__(
        self,
        job: EncodeJob,
        number: int,
        encoder: _TextEncoder | _ChatEncoder,
        tokenizer: Tokenizer,
        layout: PartLayout,
    ) -> None:
        self._job, self._encoder, self._layout = job, encoder, layout
        self._tokenizer, self._selection = tokenizer, job.settings.selection
        self._number, self._unit = number, job.units[number]
        self._part = PartFile(job.folder, number, layout)
        self._problems: list[tuple[int, str]] = []
        self._bad_bytes = self._blank = self._left_out = self._text_bytes = self._lines = 0
        self._documents: list[Any] = []
        self._rows: list[int] = []
        self._draws: list[int] = []
        self._waiting = 0
        """Bytes of the documents that wait to be encoded."""

    def run(self, report: Report) -> Marker:
        """Encode the whole unit, or as much as shows that it has too many bad lines."""
        reported = 0
        self._encoder.notes.clear()
        try:
            for line, document in enumerate(self._encoder.read(self._unit), 1):
                self._lines = line
                self._take(line, document)
                if len(self._documents) == BATCH_DOCUMENTS or self._waiting >= BATCH_BYTES:
                    self._flush()
                    done = min(self._unit.weight, self._text_bytes)
                    report(done - reported)
                    reported = done
                # Past the whole run's limit the run ends; a part of half a unit must not stay.
                if len(self._problems) > self._job.max_bad:
                    return self._give_up()
            self._flush()
            if len(self._problems) > self._job.max_bad:
                return self._give_up()
            report(self._unit.weight - reported)
            return self._part.finish(self._counts())
        except BaseException:
            self._part.discard()
            raise

    def _give_up(self) -> Marker:
        self._part.discard()
        return Marker(self._number, documents=0, tokens=0, checksum=0, counts=self._counts())

    def _counts(self) -> Counts:
        problems = sorted(self._problems)
        return Counts(
            lines=self._lines,
            text_bytes=self._text_bytes,
            problems=problems,
            bad_bytes=self._bad_bytes,
            blank=self._blank,
            left_out=self._left_out,
            notes=dict(self._encoder.notes),
        )

    def _take(self, line: int, document: Any | Problem) -> None:
        """Count what was read, and keep a document until its batch is full."""
        if isinstance(document, Blank):
            self._blank += 1
        elif isinstance(document, Problem):
            self._problems.append((line, document.reason))
            self._bad_bytes += document.size
        else:
            draw = 0
            if not self._selection.is_all:
                draw = self._selection.draw(self._encoder.content(document))
                if draw >= self._selection.limit:
                    self._left_out += 1
                    return
            self._documents.append(document)
            self._rows.append(line)
            self._draws.append(draw)
            self._waiting += self._encoder.size(document)

    def _flush(self) -> None:
        """Encode the documents that wait."""
        if not self._documents:
            return
        encoded = self._encoder.encode(self._documents)
        tokens = encoded.tokens
        vocab_size = self._tokenizer.vocab_size
        if tokens.size and (tokens.min() < 0 or tokens.max() >= vocab_size):
            raise UserError(f"tokenizer {self._job.tokenizer} gives ids outside its own vocabulary")
        kept = [place for place in range(len(self._documents)) if place not in encoded.lost]
        for place, reason in encoded.lost.items():
            self._problems.append((self._rows[place], reason))
            size = self._encoder.size(self._documents[place])
            self._bad_bytes += size
            self._waiting -= size
        self._part.add(
            Documents(
                tokens.astype(self._layout.dtype, copy=False),
                encoded.lengths[kept],
                encoded.mask,
                np.array([self._rows[place] for place in kept], np.int64),
                np.array([self._draws[place] for place in kept], np.uint64)
                if self._layout.drawn
                else None,
            )
        )
        self._text_bytes += self._waiting
        self._documents, self._rows, self._draws, self._waiting = [], [], [], 0
