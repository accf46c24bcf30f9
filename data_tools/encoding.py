"""Tokenize one unit of the input into one part: what a worker of `preprocess` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.chat_encoding import ChatEncoder, ChatOptions, text_size
from data_tools.fast_encoding import FastEncoder
from data_tools.inputs import InputFile, Unit
from data_tools.parts import Marker, PartFile
from data_tools.readers import Problem, ReadOptions, read_unit
from data_tools.special_text import SpecialText
from data_tools.workers import Report
from fastmix_mega.data.indexed import token_dtype
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError

BATCH_DOCUMENTS, BATCH_CHARACTERS = 256, 1 << 20
"""A batch ends at either: enough to keep the tokenizer's library busy, with flat memory."""


@dataclass(frozen=True)
class EncodeJob:
    """All that a worker needs; plain data."""

    files: list[InputFile]
    units: list[Unit]
    folder: Path
    tokenizer: Path
    read: ReadOptions
    eod: str | None
    bos: bool
    max_bad: int
    vocab_size: int
    backend: str = "library"
    """`library` (the tokenizer's own) or `gigatoken`."""
    chat: ChatOptions | None = None
    """None for text."""
    special_text: str = "keep"
    """What becomes of special tokens that text spells; see `data_tools.special_text`."""


def make_encoder(job: EncodeJob) -> Callable[[int, Report], Marker]:
    """Load the tokenizer once; the function returned makes the part of a unit."""
    tokenizer = Tokenizer(job.tokenizer, job.eod)
    dtype = token_dtype(tokenizer.vocab_size)
    encoder = _TextEncoder(job, tokenizer) if job.chat is None else _ChatEncoder(job, tokenizer)

    def work(number: int, report: Report) -> Marker:
        return _encode_unit(job, number, encoder, dtype, report)

    return work


class Encoded(NamedTuple):
    """A batch of documents as tokens."""

    tokens: NDArray[Any]
    """End to end."""
    lengths: NDArray[np.int32]
    """[documents] tokens of each that is not `lost`."""
    mask: NDArray[np.uint8] | None
    """[tokens], of conversations."""
    lost: dict[int, str]
    """Why documents have no tokens, by their place."""


class _TextEncoder:
    """Documents are texts; the end-of-document token follows each."""

    def __init__(self, job: EncodeJob, tokenizer: Tokenizer) -> None:
        self._job, self._tokenizer = job, tokenizer
        self.notes: Counter[str] = Counter()
        self._special = SpecialText(tokenizer, job.special_text, self.notes)
        right = self._special.encode
        self._fast = FastEncoder(tokenizer, right) if job.backend == "gigatoken" else None
        self._encode_texts = right if self._fast is None else self._fast.encode
        dtype = token_dtype(tokenizer.vocab_size)
        self._start = np.array([tokenizer.bos] if job.bos else [], dtype)
        self._end = np.array([tokenizer.eod], dtype)

    def read(self, unit: Unit) -> Iterator[Any | Problem]:
        if self._fast is not None and unit.start == 0:
            self._fast.begin_file()
        for text in read_unit(self._job.files[unit.file], unit, self._job.read):
            problem = None if isinstance(text, Problem) else self._special.check((text,))
            yield text if problem is None else problem

    def size(self, document: Any) -> int:
        return len(document)

    def encode(self, documents: list[Any]) -> Encoded:
        arrays: list[NDArray[Any]] = []
        lengths = np.empty(len(documents), np.int32)
        start, end, bos = self._start, self._end, self._job.bos
        around = len(start) + 1
        for place, ids in enumerate(self._encode_texts(documents)):
            arrays += (start, ids, end) if bos else (ids, end)
            lengths[place] = len(ids) + around
        return Encoded(np.concatenate(arrays), lengths, None, {})


class _ChatEncoder:
    """Documents are conversations, in pieces of text."""

    def __init__(self, job: EncodeJob, tokenizer: Tokenizer) -> None:
        assert job.chat is not None
        self._job = job
        self._encoder = ChatEncoder(tokenizer, job.chat, job.bos)
        self.notes = self._encoder.notes

    def read(self, unit: Unit) -> Iterator[Any | Problem]:
        return self._encoder.read(self._job.files[unit.file], unit.file, unit, self._job.read)

    def size(self, document: Any) -> int:
        return text_size(document)

    def encode(self, documents: list[Any]) -> Encoded:
        lost: dict[int, str] = {}
        ids: list[NDArray[Any]] = [np.empty(0, np.int32)]
        masks = [np.empty(0, np.uint8)]
        for place, found in enumerate(self._encoder.encode(documents)):
            if isinstance(found, Problem):
                lost[place] = found.reason
            else:
                ids.append(found[0])
                masks.append(found[1])
        lengths = np.array([len(each) for each in ids[1:]], np.int32)
        return Encoded(np.concatenate(ids), lengths, np.concatenate(masks), lost)


def _encode_unit(
    job: EncodeJob,
    number: int,
    encoder: _TextEncoder | _ChatEncoder,
    dtype: np.dtype[Any],
    report: Report,
) -> Marker:
    unit = job.units[number]
    part = PartFile(job.folder, number, dtype, masked=job.chat is not None)
    problems: list[tuple[int, str]] = []
    documents: list[Any] = []
    lines = characters = text_bytes = reported = 0
    encoder.notes.clear()

    def add_documents() -> None:
        tokens, lengths, masks, lost = encoder.encode([document for _, document in documents])
        problems.extend((documents[place][0], reason) for place, reason in lost.items())
        if len(tokens) and (tokens.min() < 0 or tokens.max() >= job.vocab_size):
            raise UserError(f"tokenizer {job.tokenizer} gives ids outside its own vocabulary")
        part.add(tokens.astype(dtype, copy=False), lengths, masks)

    try:
        for lines, document in enumerate(encoder.read(unit), 1):
            if isinstance(document, Problem):
                problems.append((lines, document.reason))
                # Past the whole run's limit the run ends; a part of half a unit must not stay.
                if len(problems) > job.max_bad:
                    part.discard()
                    return Marker(number, 0, 0, lines, 0, 0, problems)
                continue
            documents.append((lines, document))
            characters += encoder.size(document)
            if len(documents) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
                add_documents()
                text_bytes += characters
                done = min(unit.weight, text_bytes)
                report(done - reported)
                reported = done
                documents, characters = [], 0
        if documents:
            add_documents()
            text_bytes += characters
        if len(problems) > job.max_bad:
            part.discard()
            return Marker(number, 0, 0, lines, 0, 0, sorted(problems))
        report(unit.weight - reported)
        return part.finish(lines, text_bytes, sorted(problems), dict(encoder.notes))
    except BaseException:
        part.discard()
        raise
