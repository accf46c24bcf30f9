"""Compressed files, decompressed as they are read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from typing import Any, BinaryIO, cast

from fastmix_mega.errors import UserError

START = 1 << 16
"""Bytes that tell what a file holds."""


def open_decoded(source: str | BinaryIO, compression: str | None, buffer: int) -> BinaryIO:
    """The bytes of a file, decompressed as they are read.

    Args:
        source: a path, or an open file.
        compression: gzip, bzip2, xz, zstd or None.
        buffer: bytes to read ahead where nothing is compressed.
    """
    if compression == "gzip":
        return cast(BinaryIO, gzip.open(source, "rb"))
    if compression == "bzip2":
        return cast(BinaryIO, bz2.open(source, "rb"))
    if compression == "xz":
        return cast(BinaryIO, lzma.open(source, "rb"))
    if compression == "zstd":
        from backports import zstd

        # Files made with --long have windows above the default limit.
        long_windows = {zstd.DecompressionParameter.window_log_max: 31}
        return cast(BinaryIO, cast(Any, zstd).open(source, "rb", options=long_windows))
    return open(source, "rb", buffering=buffer) if isinstance(source, str) else source


def open_decoded_start(source: str | BinaryIO, compression: str | None) -> bytes:
    """The first bytes of a file, decompressed.

    Raises:
        OSError, EOFError, ValueError: if they cannot be read.
    """
    try:
        with open_decoded(source, compression, START) as stream:
            return stream.read(START)
    except decoding_errors() as error:
        raise ValueError(str(error)) from None


def open_compressed(path: BinaryIO, compression: str | None) -> BinaryIO:
    """A stream that compresses what is written into an open file; the caller closes both."""
    if compression == "gzip":
        return cast(BinaryIO, gzip.GzipFile(filename="", mode="wb", fileobj=path, mtime=0))
    if compression == "bzip2":
        return cast(BinaryIO, bz2.open(path, "wb"))
    if compression == "xz":
        return cast(BinaryIO, lzma.open(path, "wb"))
    if compression == "zstd":
        from backports import zstd

        return cast(BinaryIO, cast(Any, zstd).open(path, "wb"))
    raise UserError(f"unknown compression {compression}")


def decoding_errors() -> tuple[type[Exception], ...]:
    """What the libraries raise for a broken or truncated stream."""
    from backports import zstd

    return (EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError, OSError)
