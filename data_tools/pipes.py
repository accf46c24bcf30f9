"""Standard input and named pipes: copied to a file once, since the work reads a file in parts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastmix_mega.errors import UserError

STANDARD_INPUT = "-"
BLOCK = 1 << 20


def is_pipe(path: Path) -> bool:
    """Whether reading a path takes something out of it: a pipe, or a link to standard input."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return False
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        return True
    terminal = os.path.realpath(path).startswith(("/dev/pts/", "/dev/tty"))
    return stat.S_ISCHR(status.st_mode) and terminal


@dataclass
class Spooled:
    """Copies of pipes in a folder of their own, which is made when there is one to copy."""

    parent: Path
    kind: str = "jsonl"
    """Of standard input, and of pipes whose name does not say it."""
    folder: Path | None = None
    count: int = 0

    def copy(self, name: str) -> tuple[Path, str]:
        """Read a pipe to its end; returns the copy and the SHA-256 of its bytes."""
        if self.folder is None:
            self.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(dir=self.parent, prefix=".fastmix-pipes-"))
        self.count += 1
        path = self.folder / str(self.count)
        digest = hashlib.sha256()
        with _open_pipe(name) as source, path.open("wb") as target:
            while block := source.read(BLOCK):
                digest.update(block)
                target.write(block)
        if not path.stat().st_size:
            raise UserError(f"{name} gave no bytes: did the command before the pipe fail?")
        return path, digest.hexdigest()


@contextlib.contextmanager
def _open_pipe(name: str) -> Iterator[BinaryIO]:
    if name == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    with open(name, "rb") as file:
        yield file


@contextlib.contextmanager
def spool_pipes(parent: Path, kind: str = "jsonl") -> Iterator[Spooled]:
    """A place for copies of pipes inside `parent`, removed when the block ends."""
    pipes = Spooled(parent, kind)
    try:
        yield pipes
    finally:
        if pipes.folder is not None:
            for path in pipes.folder.iterdir():
                path.unlink()
            pipes.folder.rmdir()
