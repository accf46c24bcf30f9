"""A study's results in one file: a JSON line for every finished piece of work.

A line is on the disk whole or does not count: readers ignore what a killed process left of a last
line, and the next writer cuts it off. Several processes may append to the same file.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from fastmix_mega.errors import UserError
from fastmix_mega.files import append_jsonl


class StudyFile:
    """A JSONL file that is only ever appended to.

    Args:
        path: made with its first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """All whole lines in their order; none without a file.

        Raises:
            UserError: if a line in the middle is damaged, or the path is no file.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot read the results {self.path}: {error.strerror}") from None
        found = []
        for number, line in enumerate(content.split(b"\n")[:-1], 1):
            try:
                found.append(json.loads(line))
            except ValueError:
                raise UserError(f"{self.path}, line {number} is no JSON; mend it first") from None
        return found

    def append(self, row: dict[str, Any]) -> None:
        """Add one line; it is on the disk when this returns.

        Raises:
            OSError: if it cannot be written; nothing of it is left then.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _cut_torn_line(file)
            append_jsonl(self.path, row)
            os.fsync(file.fileno())


def _cut_torn_line(file: BinaryIO) -> None:
    """Cut what follows the last line's end."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
