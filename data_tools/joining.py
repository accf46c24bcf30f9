"""Join token files end to end in constant memory: the parts of a run, or whole prefixes.

Bytes of tokens are copied as they are; the .idx is written in its three regions, a block at a time.
A loss mask is joined the same way, as the pair `<prefix>.mask.bin/.idx`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.data.indexed_format import DTYPES, HEADER, MAGIC
from fastmix_mega.data.indexed_manifest import Manifest, MaskRecord, forget_manifest, mask_prefix
from fastmix_mega.errors import UserError
from fastmix_mega.files import fsync_directory

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
    mask: Region | None = None
    """uint8, one per token; None where every token counts."""
    mask_sha256: str | None = None

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
    masked: bool = False,
    template: str | None = None,
) -> Manifest:
    """Write `<prefix>.bin/.idx/.json`; they appear whole, the manifest last, or not.

    Args:
        prefix: without .bin/.idx.
        dtype: of the tokens in every piece.
        pieces: in order.
        manifest: further fields of the manifest.
        progress: told how many bytes of tokens each block had.
        masked: whether every piece has a loss mask, to be joined too.
        template: of the conversations, for the manifest.

    Raises:
        UserError: if a piece is shorter than it should be, has another checksum, or a negative
            length.
    """
    prefix.parent.mkdir(parents=True, exist_ok=True)
    pairs = [_Pair(prefix, dtype)]
    if masked:
        pairs.append(_Pair(Path(mask_prefix(prefix)), np.dtype(np.uint8)))
    try:
        pairs[0].write(pieces, progress)
        if masked:
            pairs[1].write([_mask_of(piece) for piece in pieces])
        forget_manifest(prefix, masked)
        for pair in pairs:
            pair.give_names()
    finally:
        for pair in pairs:
            pair.clean_up()
    fsync_directory(prefix.parent)
    tokens, *masks = pairs
    made = Manifest(
        documents=sum(piece.documents for piece in pieces),
        tokens=tokens.length,
        dtype=dtype.name,
        bin_sha256=tokens.bin_sha256,
        idx_sha256=tokens.idx_sha256,
        mask=None if not masks else masks[0].as_mask(template),
        **manifest,
    )
    made.write(prefix)
    return made


def _mask_of(piece: Piece) -> Piece:
    assert piece.mask is not None
    return replace(piece, tokens=piece.mask, sha256=piece.mask_sha256)


class _Pair:
    """A .bin/.idx pair under names of its own until it is whole."""

    def __init__(self, prefix: Path, dtype: np.dtype[Any]) -> None:
        self._prefix, self._dtype = prefix, dtype
        self._partial = {kind: Path(f"{prefix}.{kind}.partial") for kind in ("bin", "idx")}
        self.length = self._ones = 0
        self.bin_sha256 = self.idx_sha256 = ""

    def write(
        self, pieces: Sequence[Piece], progress: Callable[[int], None] = lambda _bytes: None
    ) -> None:
        digest = hashlib.sha256()
        with self._partial["bin"].open("wb") as file:
            for piece in pieces:
                copied = hashlib.sha256() if piece.sha256 else None
                for block in _read(piece.tokens):
                    file.write(block)
                    digest.update(block)
                    if copied is not None:
                        copied.update(block)
                    self._ones += block.count(1) if self._dtype == np.uint8 else 0
                    progress(len(block))
                if copied is not None and copied.hexdigest() != piece.sha256:
                    raise UserError(f"{piece.tokens.path} was damaged; preprocess it again")
            _sync(file)
        with self._partial["idx"].open("wb") as file:
            self.length = _write_index(file, self._dtype, pieces)
            _sync(file)
        stored = self._partial["bin"].stat().st_size
        if self.length * self._dtype.itemsize != stored:
            raise UserError(
                f"{self._prefix}: the lengths say {self.length} tokens, the bytes {stored}"
            )
        self.bin_sha256, self.idx_sha256 = digest.hexdigest(), _hash_file(self._partial["idx"])

    def as_mask(self, template: str | None) -> MaskRecord:
        return MaskRecord(
            answers=self._ones,
            template=template,
            bin_sha256=self.bin_sha256,
            idx_sha256=self.idx_sha256,
        )

    def give_names(self) -> None:
        for kind, path in self._partial.items():
            os.replace(path, f"{self._prefix}.{kind}")

    def clean_up(self) -> None:
        for path in self._partial.values():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


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
