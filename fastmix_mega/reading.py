"""Small files that anybody may have written: read within limits, so that none takes all memory.

A file of another kind (a device, a pipe without an end) is refused, and so is one that is larger
than any honest file of its purpose. What is read here is data: nothing in it is ever run.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from fastmix_mega.errors import UserError

LARGEST = 16 << 20
"""Bytes of a JSON file. Python's objects take up to 25 times as much."""
_SHELL = ("/dev/fd/", "/proc/self/fd/")
"""What a shell calls the output of a command that is given as a file: `<(command)`."""


def read_limited(path: str | Path, largest: int = LARGEST) -> bytes:
    """The content of a file.

    Raises:
        OSError: as `open` does.
        UserError: if it is no file, cannot be read, or has more than `largest` bytes.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode) and not str(path).startswith(_SHELL):
        raise UserError(f"{path} is no ordinary file")
    with open(path, "rb") as file:
        try:
            content = file.read(largest + 1)
        except OSError as error:
            # A damaged disk, or one of the kernel's files that look like ordinary ones.
            raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > largest:
        raise UserError(f"{path} has more than {largest >> 20} MiB, which no such file needs")
    return content


def parse_json(content: bytes | str) -> Any:
    """What a text of JSON holds.

    Raises:
        ValueError: if it is no JSON, or has a string that is no Unicode.
        RecursionError: if it is nested too deeply.
    """
    found = json.loads(content)
    escape = b"\\ud" if isinstance(content, bytes) else "\\ud"
    if escape in content.lower():  # type: ignore[operator]
        # Half a pair of surrogates can be neither written nor shown.
        json.dumps(found, ensure_ascii=False).encode()
    return found


def read_json(path: str | Path, largest: int = LARGEST) -> Any:
    """What a file of JSON holds.

    Raises:
        OSError: as `open` does.
        UserError: if it is no file, or is too large.
        ValueError: if it is no JSON; see `parse_json`.
        RecursionError: if it is nested too deeply.
    """
    return parse_json(read_limited(path, largest))
