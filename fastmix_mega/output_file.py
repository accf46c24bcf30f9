"""A place for a result, looked at before any work is done: what is not ours stays as it is."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmix_mega.errors import UserError
from fastmix_mega.files import identity_of

RUN_FILES = frozenset(
    (
        *("config.yaml", "run.json", "mixture.json", "surface.json", "predictions.json"),
        *("history.jsonl", "metrics.jsonl"),
    )
)
"""What a run writes into its folder and reads again."""

LOOKED_AT = 1 << 16
"""Bytes of a file's beginning and of its end, by which it is told what it is."""
OUR_MARKS = (b"by fastmix-mega", b'"fastmix-')
"""One stands in every result's notes, or as the name of its schema."""


@dataclass(frozen=True)
class ResultFile:
    """A place for a result, as the user gave it."""

    path: Path
    overwrite: bool = False
    """Whether a file that fastmix-mega did not write may be replaced."""


def add_output(parser: argparse.ArgumentParser, what: str, **more: Any) -> None:
    """Add `--output` and `--overwrite`.

    Args:
        parser: of a verb.
        what: the help text of `--output`.
        more: of `add_argument`.
    """
    parser.add_argument("--output", "-o", type=Path, help=what, **more)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a file that is there and that fastmix did not write",
    )


def notes_beside(path: Path) -> Path:
    """Where the notes of a result stand that cannot hold them itself."""
    return path.with_name(f"{path.name}.notes.txt")


def require_output_file(
    output: str | Path | ResultFile,
    inputs: Iterable[str | Path] = (),
    marks: Sequence[bytes] = OUR_MARKS,
) -> Path:
    """The path of a file that can be written, and is none of the inputs.

    An older result of ours is replaced; other people's files only if they say so, and a run's own
    files, token files, tokenizers and configurations never.

    Args:
        output: as the user gave it.
        inputs: files and folders that the result is made of.
        marks: one of them stands near the beginning or the end of such a result.

    Returns:
        `output` as a path.

    Raises:
        UserError: if it is a folder, an input or a file that is kept, or nothing can be written
            there.
    """
    asked = output if isinstance(output, ResultFile) else ResultFile(Path(output))
    path = asked.path
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
    if not asked.overwrite and not _is_ours(path, marks):
        raise UserError(
            f"{path} is there already, and is no earlier result of this command; name another "
            "file, or replace it with --overwrite"
        )
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
        keys = {line.partition(b":")[0] for line in _ends(path).splitlines()}
        if {b"sources", b"tokenizer"} <= keys:
            return "a configuration"
    return ""


def _is_ours(path: Path, marks: Sequence[bytes]) -> bool:
    """Whether nothing is lost with a file: it is not there, empty, or an earlier result."""
    if not path.is_file() or path.stat().st_size == 0:
        return True
    ends, beside = _ends(path), notes_beside(path)
    if beside.is_file():
        ends += _ends(beside)
    return any(mark in ends for mark in marks)


def _ends(path: Path) -> bytes:
    """The beginning of a file, and its end."""
    with path.open("rb") as file:
        start = file.read(LOOKED_AT)
        file.seek(max(LOOKED_AT, path.stat().st_size - LOOKED_AT))
        return start + file.read(LOOKED_AT)
