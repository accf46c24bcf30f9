"""Join token files end to end in constant memory: the parts of a run, or whole prefixes.

Bytes of tokens are copied as they are; the .idx is written in its three regions, a block at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.data.indexed import DTYPES, HEADER, MAGIC, Manifest
from fastmix_mega.errors import UserError
from fastmix_mega.files import fsync_directory, write_json

BLOCK = 4 << 20
"""Bytes read at a time."""


@dataclass(frozen=True)
class Region:
    """Part of a file."""

    path: Path
    start: int
    """Byte offset."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Piece:
    """Tokens and their lengths, somewhere on disk."""

    tokens: Region
    lengths: Region
    """int32, one per sequence."""
    boundaries: Region | None = None
    """int64, sequences before each document's start and a last entry; None where each sequence is a
    document."""
    sha256: str | None = None
    """Of the tokens, where it is known."""

    @property
    def sequences(self) -> int:
        return self.lengths.size // 4

    @property
    def documents(self) -> int:
        return self.sequences if self.boundaries is None else self.boundaries.size // 8 - 1


def join(
    prefix: Path,
    dtype: np.dtype[Any],
    pieces: Sequence[Piece],
    manifest: dict[str, Any],
    progress: Callable[[int], None] = lambda _bytes: None,
) -> Manifest:
    """Write `<prefix>.bin/.idx/.json`; they appear whole, the manifest last, or not.

    Args:
        prefix: without .bin/.idx.
        dtype: of the tokens in every piece.
        pieces: in order.
        manifest: further fields of the manifest.
        progress: told how many bytes of tokens each block had.

    Raises:
        UserError: if a piece is shorter than it should be, has another checksum, or a negative
            length.
    """
    prefix.parent.mkdir(parents=True, exist_ok=True)
    partial = {kind: Path(f"{prefix}.{kind}.partial") for kind in ("bin", "idx")}
    try:
        digest = hashlib.sha256()
        with partial["bin"].open("wb") as file:
            for piece in pieces:
                copied = hashlib.sha256() if piece.sha256 else None
                for block in _read(piece.tokens):
                    file.write(block)
                    digest.update(block)
                    if copied is not None:
                        copied.update(block)
                    progress(len(block))
                if copied is not None and copied.hexdigest() != piece.sha256:
                    raise UserError(f"{piece.tokens.path} was damaged; preprocess it again")
            _sync(file)
        with partial["idx"].open("wb") as file:
            tokens = _write_index(file, dtype, pieces)
            _sync(file)
        stored = partial["bin"].stat().st_size
        if tokens * dtype.itemsize != stored:
            raise UserError(f"{prefix}: the lengths say {tokens} tokens, the bytes {stored}")
        index_digest = _hash_file(partial["idx"])
        # An old manifest must never stand beside new files.
        Path(f"{prefix}.json").unlink(missing_ok=True)
        for kind, path in partial.items():
            os.replace(path, f"{prefix}.{kind}")
    finally:
        for path in partial.values():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    fsync_directory(prefix.parent)
    made = Manifest(
        documents=sum(piece.documents for piece in pieces),
        tokens=tokens,
        dtype=dtype.name,
        bin_sha256=digest.hexdigest(),
        idx_sha256=index_digest,
        **manifest,
    )
    write_json(f"{prefix}.json", made.model_dump(mode="json"))
    return made


def _write_index(file: BinaryIO, dtype: np.dtype[Any], pieces: Sequence[Piece]) -> int:
    """Returns the number of tokens."""
    code = next(code for code, known in DTYPES.items() if known == dtype)
    sequences = sum(piece.sequences for piece in pieces)
    documents = sum(piece.documents for piece in pieces)
    file.write(HEADER.pack(MAGIC, 1, code, sequences, documents + 1))
    for piece in pieces:
        for block in _read(piece.lengths):
            lengths = np.frombuffer(block, np.int32)
            if lengths.size and int(lengths.min()) < 0:
                raise UserError(f"{piece.lengths.path}: a length is negative; make it again")
            file.write(block)
    end = 0
    for piece in pieces:
        for block in _read(piece.lengths):
            ends = np.cumsum(np.frombuffer(block, np.int32), dtype=np.int64) + end
            file.write((_shifted(ends, end) * dtype.itemsize).tobytes())
            end = int(ends[-1])
    before = 0
    for piece in pieces:
        if piece.boundaries is None:
            for start in range(0, piece.sequences, BLOCK // 8):
                stop = min(start + BLOCK // 8, piece.sequences)
                file.write(np.arange(before + start, before + stop, dtype=np.int64).tobytes())
        else:
            all_but_last = Region(
                piece.boundaries.path, piece.boundaries.start, piece.boundaries.size - 8
            )
            for block in _read(all_but_last):
                file.write((np.frombuffer(block, np.int64) + before).tobytes())
        before += piece.sequences
    file.write(np.array([before], np.int64).tobytes())
    return end


def _shifted(ends: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """Where each sequence starts, from where each ends."""
    starts = np.empty_like(ends)
    starts[0] = first
    starts[1:] = ends[:-1]
    return starts


def _read(region: Region) -> Iterator[bytes]:
    with region.path.open("rb") as file:
        file.seek(region.start)
        left = region.size
        while left:
            block = file.read(min(BLOCK, left))
            if not block:
                raise UserError(f"{region.path} ends {left} bytes too early; make it again")
            left -= len(block)
            yield block


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _read(Region(path, 0, path.stat().st_size)):
        digest.update(block)
    return digest.hexdigest()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
