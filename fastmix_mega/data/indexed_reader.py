"""Reads Megatron's indexed token files, ours and those of megatron-core's own builder.

Opening takes O(1) time and memory: the header, the sizes and the last entry are read and checked,
so that a truncated or swapped file is an error and never garbage tokens.

Conversations have a loss mask beside their tokens, `<prefix>.mask.bin` and `.idx`: an indexed
dataset of the same lengths with a 1 for every token that counts in the loss, as uint8.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.data import remote
from fastmix_mega.data.indexed_format import DTYPES, HEADER, MAGIC
from fastmix_mega.data.indexed_manifest import manifest_path, mask_prefix, read_manifest
from fastmix_mega.errors import UserError
from fastmix_mega.paths import rule_for


class IndexedTokens:
    """One prefix, opened for reading.

    Attributes:
        prefix: without .bin/.idx; a URL is copied first (`fastmix_mega.data.remote`).
        dtype: of the stored tokens.
        num_tokens, num_documents: of the whole file.
        tokens: [num_tokens] read-only memory map.
        manifest: None where none stands beside the files.
        mask: the loss mask, whose `tokens` are 0 or 1; None where every token counts.

    Raises:
        UserError: naming the file, the offset and what to do.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = str(prefix)
        self.bin_path, self.idx_path = _local_files(self.prefix)
        for path in (self.bin_path, self.idx_path):
            # Unlike Path.is_file: no error where a name is too long or a folder is closed to us.
            if not os.path.isfile(path):
                raise UserError(_missing(self.prefix, path))
            if not os.access(path, os.R_OK):
                raise UserError(f"{path} cannot be read: permission denied")
        bin_size, idx_size = self.bin_path.stat().st_size, self.idx_path.stat().st_size
        with self.idx_path.open("rb") as file:
            header = file.read(HEADER.size)
            if len(header) < HEADER.size or not header.startswith(MAGIC):
                raise self._broken("it does not start like a Megatron index (offset 0)")
            _, version, code, sequences, boundaries = HEADER.unpack(header)
            if version != 1:
                raise self._broken(f"it has version {version} (offset 9); only 1 is known")
            if code not in DTYPES:
                raise self._broken(f"{code} is no type of tokens (offset 17)")
            self.dtype = DTYPES[code]
            expected = HEADER.size + 12 * sequences + 8 * boundaries
            if expected != idx_size:
                hint = (
                    "; multimodal files are not supported"
                    if idx_size == expected + sequences
                    else "; it was truncated or is another file's"
                )
                raise self._broken(
                    f"{sequences} sequences and {boundaries} boundaries need {expected} bytes, it "
                    f"has {idx_size}{hint}"
                )
            end = 0
            if sequences:
                file.seek(HEADER.size + 4 * (sequences - 1))
                (length,) = struct.unpack("<i", file.read(4))
                file.seek(HEADER.size + 12 * sequences - 8)
                (offset,) = struct.unpack("<q", file.read(8))
                end = offset + length * self.dtype.itemsize
                if length < 0 or offset < 0:
                    raise self._broken("its last entry is negative")
            if boundaries == 0:
                raise self._broken("it has no document boundaries")
        if end != bin_size:
            raise UserError(
                f"{self.bin_path} has {bin_size} bytes, but {self.idx_path} ends at byte {end}: "
                "one of them was truncated or belongs to other data; preprocess it again"
            )
        if bin_size % self.dtype.itemsize:
            raise self._broken(f"{bin_size} bytes are no whole number of {self.dtype.name} tokens")
        self.num_sequences = int(sequences)
        self.num_documents = int(boundaries) - 1
        self.num_tokens = bin_size // self.dtype.itemsize
        self.manifest = read_manifest(self.prefix)
        self._match_manifest()
        self.tokens: NDArray[Any] = (
            np.memmap(self.bin_path, self.dtype, "r")
            if self.num_tokens
            else np.empty(0, self.dtype)
        )
        self.mask: IndexedTokens | None = self._open_mask()

    @property
    def lengths(self) -> NDArray[np.int32]:
        """[num_sequences] tokens of each sequence, a memory map."""
        if not self.num_sequences:
            return np.empty(0, np.int32)
        return np.memmap(self.idx_path, np.int32, "r", HEADER.size, (self.num_sequences,))

    @property
    def offsets(self) -> NDArray[np.int64]:
        """[num_sequences] byte at which each sequence starts, a memory map."""
        if not self.num_sequences:
            return np.empty(0, np.int64)
        start = HEADER.size + 4 * self.num_sequences
        return np.memmap(self.idx_path, np.int64, "r", start, (self.num_sequences,))

    @property
    def boundaries(self) -> NDArray[np.int64]:
        """[num_documents + 1] sequences before each document and in all, a memory map."""
        start = HEADER.size + 12 * self.num_sequences
        return np.memmap(self.idx_path, np.int64, "r", start, (self.num_documents + 1,))

    def _broken(self, reason: str) -> UserError:
        return UserError(f"{self.idx_path} is broken: {reason}; preprocess the data again")

    def _match_manifest(self) -> None:
        manifest = self.manifest
        if manifest is None:
            return
        for what, said, found in (
            ("tokens", manifest.tokens, self.num_tokens),
            ("documents", manifest.documents, self.num_documents),
            ("dtype", manifest.dtype, self.dtype.name),
        ):
            if said != found:
                raise UserError(
                    f"the manifest of {self.prefix} says {what} = {said}, but {self.idx_path} has "
                    f"{found}: the files do not belong together; preprocess the data again"
                )

    def _open_mask(self) -> IndexedTokens | None:
        prefix = mask_prefix(self.prefix)
        stray = next((p for p in (f"{prefix}.idx", f"{prefix}.bin") if os.path.isfile(p)), None)
        if self.manifest is not None and self.manifest.mask is None and stray is not None:
            raise UserError(
                f"the manifest of {self.prefix} knows of no loss mask, but {stray} is there: the "
                "files do not belong together; preprocess the data again"
            )
        if stray is None and (self.manifest is None or self.manifest.mask is None):
            return None
        mask = IndexedTokens(prefix)
        for what, ours, theirs in (
            ("dtype", "uint8", mask.dtype.name),
            ("sequences", self.num_sequences, mask.num_sequences),
            ("documents", self.num_documents, mask.num_documents),
            ("tokens", self.num_tokens, mask.num_tokens),
        ):
            if ours != theirs:
                raise UserError(
                    f"{mask.idx_path} is no loss mask of {self.idx_path}: its {what} should be "
                    f"{ours}, not {theirs}; preprocess the data again"
                )
        return mask


def _local_files(prefix: str) -> tuple[Path, Path]:
    """.bin and .idx; of a prefix in object storage, their copies on this machine."""
    if not remote.is_remote(prefix):
        return Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
    manifest = read_manifest(prefix)
    if manifest is None:
        raise UserError(
            f"{manifest_path(prefix)} is missing: token files in object storage need the checksums "
            "of their manifest; preprocess them, or merge Megatron's, on a disk and copy all three "
            "files"
        )
    return (
        remote.cached_copy(f"{prefix}.bin", manifest.bin_sha256),
        remote.cached_copy(f"{prefix}.idx", manifest.idx_sha256),
    )


def _missing(prefix: str, path: Path) -> str:
    """What to say of a prefix without its files."""
    stem, end = os.path.splitext(prefix)
    if end in (".bin", ".idx") and os.path.isfile(f"{stem}.bin"):
        return f"{path} is missing; give the prefix without {end}: {stem}"
    return f"{path} is missing; make it with fastmix data preprocess{rule_for(prefix)}"
