"""Files in object storage, named `s3://bucket/key`, `gs://...` or by another store of fsspec's.

Corpora are read where they are. Token files are copied whole, once per machine, into the folder
FASTMIX_CACHE (~/.cache/fastmix by default): training reads them at random places. A copy is named
by its content's SHA-256, compared while it is copied, and appears under that name whole or not at
all; processes of one machine wait for the one that copies.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from fastmix_mega.errors import UserError
from fastmix_mega.reading import read_limited

CACHE_VARIABLE = "FASTMIX_CACHE"
STORES = (
    *("abfs", "abfss", "adl", "az", "dbfs", "file", "ftp", "gcs", "gs", "hdfs", "hf", "http"),
    *("https", "lakefs", "local", "memory", "oci", "ocilake", "oss", "s3", "s3a", "sftp", "smb"),
    *("ssh", "tos", "tosfs", "webdav", "webhdfs"),
)
"""Schemes that are read. fsspec has others, which unpack, keep copies, or ask a local program; and
joins several by `::`. A file that somebody else has written must not choose these."""
LARGEST = 64 << 20
"""Bytes of a manifest, which may name hundreds of thousands of input files."""
BLOCK = 8 << 20
"""Bytes that are asked for at a time."""


def is_remote(path: str) -> bool:
    return "://" in path


def cache_folder() -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "fastmix")


@contextmanager
def _clear_errors(url: str) -> Iterator[None]:
    """FileNotFoundError as it is; UserError for whatever else the store's library raises."""
    try:
        yield
    except (FileNotFoundError, UserError):
        raise
    except ImportError as error:
        raise UserError(f"{url}: {error} (for example: pip install s3fs, or gcsfs)") from None
    # Every store's library has errors of its own: wrong keys, no network, no such bucket.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot read {url}: {type(error).__name__}: {reason}") from None


def _system(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    if scheme not in STORES or "::" in url:
        raise UserError(
            f"cannot read {url[:200]}: no store that is read here; those that are: "
            f"{', '.join(STORES)}"
        )
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    return system, str(path)


def open_remote(url: str) -> BinaryIO:
    """A file that can be read and sought in, over the network.

    Raises:
        FileNotFoundError: if there is no such object.
        UserError: if it cannot be read.
    """
    with _clear_errors(url):
        system, path = _system(url)
        return cast(BinaryIO, io.BufferedReader(system.open(path, "rb", block_size=BLOCK), 1 << 20))


def read_bytes(path: str) -> bytes:
    """A small file's content, wherever it is; OSError or UserError if it cannot be read."""
    if not is_remote(path):
        return read_limited(path, LARGEST)
    with _clear_errors(path):
        system, inner = _system(path)
        size = int(system.size(inner) or 0)
        if size > LARGEST:
            raise UserError(f"{path} has {size:,} bytes, which no such file needs")
        return bytes(system.cat_file(inner))


def find(pattern: str) -> list[str]:
    """The URLs that a URL with or without wildcards stands for, sorted; none if there are none."""
    with _clear_errors(pattern):
        system, path = _system(pattern)
        found = system.glob(path) if any(mark in path for mark in "*?[") else [path]
        return sorted(str(system.unstrip_protocol(each)) for each in found if system.isfile(each))


def size_and_version(url: str) -> tuple[int, int]:
    """Bytes, and a number that changes when the object is written anew."""
    with _clear_errors(url):
        system, path = _system(url)
        digest = hashlib.sha256(str(system.ukey(path)).encode()).digest()
        return int(system.size(path)), int.from_bytes(digest[:7], "big")


def cached_copy(url: str, sha256: str) -> Path:
    """The local copy of an object whose content is known by its checksum; made where it is missing.

    Raises:
        UserError: if it cannot be had, has another content, or the disk is full.
    """
    folder = cache_folder()
    copy = folder / f"{sha256}{PurePosixPath(url).suffix}"
    if copy.is_file():
        return copy
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{sha256}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not copy.is_file():
                print(f"copying {url} to {folder}", file=sys.stderr)
                _copy(url, copy, sha256)
    except FileNotFoundError:
        raise UserError(f"{url} is missing") from None
    except OSError as error:
        raise UserError(
            f"cannot copy {url} to {folder}: {error.strerror}; {CACHE_VARIABLE} names "
            "another folder"
        ) from None
    return copy


def _copy(url: str, copy: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    partial = copy.with_name(f"{copy.name}.partial-{os.getpid()}")
    try:
        with open_remote(url) as source, partial.open("wb") as target:
            while block := _read_block(source, url):
                digest.update(block)
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() != sha256:
            raise UserError(
                f"{url} has another checksum than its manifest says: it was swapped, or is being "
                "written; copy both anew"
            )
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)


def _read_block(source: BinaryIO, url: str) -> bytes:
    with _clear_errors(url):
        return source.read(BLOCK)
