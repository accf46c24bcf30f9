"""Tokenize one unit of the input into one part: what a worker of `preprocess` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.fast_encoding import FastEncoder
from data_tools.inputs import InputFile, Unit
from data_tools.parts import Marker, PartFile
from data_tools.readers import Problem, ReadOptions, read_unit
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
    backend: str = "library"
    """`library` (the tokenizer's own) or `gigatoken`."""


def make_encoder(job: EncodeJob) -> Callable[[int, Report], Marker]:
    """Load the tokenizer once; the function returned makes the part of a unit."""
    tokenizer = Tokenizer(job.tokenizer, job.eod)
    fast = FastEncoder(tokenizer) if job.backend == "gigatoken" else None
    encode_texts = tokenizer.encode if fast is None else fast.encode
    dtype = token_dtype(tokenizer.vocab_size)
    start = np.array([tokenizer.bos] if job.bos else [], dtype)
    end = np.array([tokenizer.eod], dtype)

    def encode(texts: list[str]) -> tuple[NDArray[Any], NDArray[np.int32]]:
        arrays: list[NDArray[Any]] = []
        lengths = np.empty(len(texts), np.int32)
        around = len(start) + 1
        for place, ids in enumerate(encode_texts(texts)):
            arrays += (start, ids, end) if job.bos else (ids, end)
            lengths[place] = len(ids) + around
        tokens = np.concatenate(arrays)
        if tokens.min() < 0 or tokens.max() >= tokenizer.vocab_size:
            raise UserError(f"tokenizer {job.tokenizer} gives ids outside its own vocabulary")
        return tokens.astype(dtype, copy=False), lengths

    def work(number: int, report: Report) -> Marker:
        unit = job.units[number]
        if fast is not None:
            fast.begin_unit()
        return _encode_unit(job, number, unit, encode, dtype, report)

    return work


def _encode_unit(
    job: EncodeJob,
    number: int,
    unit: Unit,
    encode: Callable[[list[str]], tuple[NDArray[Any], NDArray[np.int32]]],
    dtype: np.dtype[Any],
    report: Report,
) -> Marker:
    part = PartFile(job.folder, number, dtype)
    problems: list[tuple[int, str]] = []
    texts: list[str] = []
    lines = characters = text_bytes = reported = 0
    try:
        for lines, text in enumerate(read_unit(job.files[unit.file], unit, job.read), 1):
            if isinstance(text, Problem):
                problems.append((lines, text.reason))
                # Past the whole run's limit the run ends; a part of half a unit must not stay.
                if len(problems) > job.max_bad:
                    part.discard()
                    return Marker(number, 0, 0, lines, 0, 0, problems)
                continue
            texts.append(text)
            characters += len(text)
            if len(texts) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
                part.add(*encode(texts))
                text_bytes += characters
                done = min(unit.weight, text_bytes)
                report(done - reported)
                reported = done
                texts, characters = [], 0
        if texts:
            part.add(*encode(texts))
            text_bytes += characters
        report(unit.weight - reported)
        return part.finish(lines, text_bytes, problems)
    except BaseException:
        part.discard()
        raise
