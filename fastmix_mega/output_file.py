"""A place for a result, looked at before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fastmix_mega.errors import UserError
from fastmix_mega.files import identity_of

RUN_FILES = frozenset(
    (
        *("config.yaml", "run.json", "mixture.json", "surface.json", "predictions.json"),
        *("history.jsonl", "metrics.jsonl"),
    )
)
"""What a run writes into its folder and reads again."""

HEAD_BYTES = 1 << 16
"""Of a YAML file, looked at to tell a configuration."""


def require_output_file(output: str | Path, inputs: Iterable[str | Path] = ()) -> Path:
    """The path of a file that can be written, and is none of the inputs.

    An older result of the same name is replaced; a run's own files, token files, tokenizers and
    configurations are not.

    Args:
        output: as the user gave it.
        inputs: files and folders that the result is made of.

    Returns:
        `output` as a path.

    Raises:
        UserError: if it is a folder, an input or a file that is kept, or nothing can be written
            there.
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
    if kept := _what_is_kept(path):
        raise UserError(f"{path} is {kept}, which would be overwritten; name another file")
    if not above.is_dir():
        raise UserError(f"cannot write {path}: {above} is a file, not a folder")
    if not os.access(above, os.W_OK):
        raise UserError(f"cannot write {path}: no permission to write to {above}")
    return path


def _what_is_kept(path: Path) -> str:
    """What a file is that no result may replace; empty if there is no such file."""
    if not path.is_file():
        return ""
    if path.name in RUN_FILES and (path.parent / "run.json").is_file():
        return f"a file of the run in {path.parent}"
    if path.suffix in (".bin", ".idx"):
        return "a token file"
    if path.suffix == ".model" or path.name == "tokenizer.json":
        return "a tokenizer"
    if path.suffix in (".yaml", ".yml"):
        with path.open("rb") as file:
            keys = {line.partition(b":")[0] for line in file.read(HEAD_BYTES).splitlines()}
        if {b"sources", b"tokenizer"} <= keys:
            return "a configuration"
    return ""
