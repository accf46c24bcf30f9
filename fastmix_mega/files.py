"""Files that appear whole or not at all: atomic writes, and JSON lines that survive a torn end."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

Identity = tuple[int, int]
"""Device and inode."""


def identity_of(path: str | Path) -> Identity | None:
    """What a file or folder is, whatever it is called; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def fsync_directory(directory: Path) -> None:
    """Make renames inside `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part."""
    with open_atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def open_atomic(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; a result is for the team, and never world-writable.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_directory(path.parent)


def remove_unfinished(path: str | Path) -> None:
    """Remove what processes that were killed inside of `open_atomic` have left beside `path`.

    Only for whoever knows that nobody else writes there now.
    """
    path = Path(path)
    # As tempfile calls them.
    name = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}")
    for other in path.parent.glob(".*"):
        if name.fullmatch(other.name):
            other.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_jsonl(path: str | Path, value: dict[str, Any]) -> None:
    """Append one JSON line in one write, so that a crash can tear only the last line.

    Raises:
        OSError: and nothing of the line is left in the file.
    """
    line = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(descriptor, line)
        if written < len(line):
            # A disk that fills up takes the first part.
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(descriptor)


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read the whole lines of a JSONL file; a last line that a crash tore is left out.

    Raises:
        ValueError: if a line is not JSON.
    """
    rows: list[dict[str, Any]] = []
    for line in Path(path).read_bytes().split(b"\n")[:-1]:
        if line.strip():
            try:
                rows.append(json.loads(line))
            except RecursionError:
                raise ValueError("it is nested too deeply") from None
    return rows
