"""Writes indexed token files, as megatron-core's own `IndexedDataset` reads them, and manifests."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.data.indexed_format import DTYPES, encode_index
from fastmix_mega.data.indexed_manifest import (
    Manifest,
    MaskRecord,
    forget_manifest,
    mask_prefix,
)
from fastmix_mega.files import fsync_directory


class IndexedWriter:
    """Writes one prefix; a context manager whose files appear whole, the manifest last, or not.

    Args:
        prefix: without .bin/.idx.
        dtype: of the tokens on disk, from `token_dtype`.
        manifest: further fields of the manifest (tokenizer_sha256, vocab_size, eod, made_by).
        masked: whether every document comes with a loss mask.
        template: of the conversations, for the manifest.
    """

    def __init__(
        self,
        prefix: str | Path,
        dtype: np.dtype[Any],
        manifest: dict[str, Any] | None = None,
        masked: bool = False,
        template: str | None = None,
    ) -> None:
        assert dtype in DTYPES.values()
        self.prefix = str(prefix)
        self._extra = manifest or {}
        self._template = template
        self._answers = 0
        Path(prefix).parent.mkdir(parents=True, exist_ok=True)
        self._tokens = _WrittenPair(self.prefix, dtype)
        self._mask = _WrittenPair(mask_prefix(prefix), np.dtype(np.uint8)) if masked else None

    def __enter__(self) -> IndexedWriter:
        return self

    def add_document(
        self,
        tokens: Sequence[int] | NDArray[np.integer],
        mask: Sequence[int] | NDArray[np.integer] | None = None,
    ) -> None:
        """Append one document (with its end-of-document token, where it has one).

        Args:
            tokens: of the document.
            mask: 1 for every token that counts in the loss, 0 for the others.

        Raises:
            OverflowError: if a token does not fit the type on disk, where it would wrap around.
        """
        assert (mask is not None) == (self._mask is not None)
        self._tokens.add(tokens)
        if self._mask is not None and mask is not None:
            assert len(mask) == len(tokens)
            self._mask.add(mask)
            self._answers += int(np.sum(mask))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pairs = [pair for pair in (self._tokens, self._mask) if pair is not None]
        try:
            if kind is None:
                self._finish(pairs)
        finally:
            for pair in pairs:
                pair.clean_up()

    def _finish(self, pairs: Sequence[_WrittenPair]) -> None:
        for pair in pairs:
            pair.sync()
        forget_manifest(self.prefix, masked=self._mask is not None)
        for pair in pairs:
            pair.give_names()
        fsync_directory(Path(self.prefix).parent)
        mask = None
        if self._mask is not None:
            mask = MaskRecord(
                answers=self._answers,
                template=self._template,
                bin_sha256=self._mask.bin_sha256,
                idx_sha256=self._mask.index_sha256,
            )
        Manifest(
            documents=len(self._tokens.lengths),
            tokens=sum(self._tokens.lengths),
            dtype=self._tokens.dtype.name,
            bin_sha256=self._tokens.bin_sha256,
            idx_sha256=self._tokens.index_sha256,
            mask=mask,
            **self._extra,
        ).write(self.prefix)


class _WrittenPair:
    """One .bin/.idx pair under names of its own until it is whole."""

    def __init__(self, prefix: str, dtype: np.dtype[Any]) -> None:
        self.prefix, self.dtype = prefix, dtype
        self.lengths: list[int] = []
        self.index_sha256 = ""
        self._digest = hashlib.sha256()
        self._partial = {kind: Path(f"{prefix}.{kind}.partial") for kind in ("bin", "idx")}
        self._bin: BinaryIO = self._partial["bin"].open("wb")

    @property
    def bin_sha256(self) -> str:
        return self._digest.hexdigest()

    def add(self, tokens: Sequence[int] | NDArray[np.integer]) -> None:
        values, limits = np.asarray(tokens), np.iinfo(self.dtype)
        if values.size and not limits.min <= values.min() <= values.max() <= limits.max:
            raise OverflowError(f"{self.prefix}: a token does not fit into {self.dtype.name}")
        content = values.astype(self.dtype).tobytes()
        self._bin.write(content)
        self._digest.update(content)
        self.lengths.append(len(content) // self.dtype.itemsize)

    def sync(self) -> None:
        index = encode_index(np.array(self.lengths, np.int32), self.dtype)
        self.index_sha256 = hashlib.sha256(index).hexdigest()
        with self._partial["idx"].open("wb") as file:
            file.write(index)
            for written in (file, self._bin):
                written.flush()
                os.fsync(written.fileno())

    def give_names(self) -> None:
        for kind, path in self._partial.items():
            os.replace(path, f"{self.prefix}.{kind}")

    def clean_up(self) -> None:
        self._bin.close()
        for path in self._partial.values():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
