"""A place for a result, looked at before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fastmix_mega.errors import UserError
from fastmix_mega.files import identity_of


def require_output_file(output: str | Path, inputs: Iterable[str | Path] = ()) -> Path:
    """The path of a file that can be written, and is none of the inputs.

    An older result of the same name is replaced.

    Args:
        output: as the user gave it.
        inputs: files and folders that the result is made of.

    Returns:
        `output` as a path.

    Raises:
        UserError: if it is a folder or an input, or lies where nothing can be written.
    """
    path = Path(output)
    try:
        is_folder = path.is_dir()
        above = next(each for each in path.absolute().parents if each.exists())
    except OSError as error:
        raise UserError(f"cannot write {str(path)[:80]}: {error.strerror}") from None
    if is_folder:
        raise UserError(f"cannot write {path}: it is a folder; name a file in it")
    here = identity_of(path)
    if here is not None and here in map(identity_of, inputs):
        raise UserError(f"{path} is the input, which would be overwritten; name another file")
    if not above.is_dir():
        raise UserError(f"cannot write {path}: {above} is a file, not a folder")
    if not os.access(above, os.W_OK):
        raise UserError(f"cannot write {path}: no permission to write to {above}")
    return path
