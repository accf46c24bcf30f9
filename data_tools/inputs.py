"""Which files a user means, of which kind they are, and into which units of work they are cut.

A unit is what one worker does in one go and what a resumed run does not do again: a byte range of a
plain file, a row group of a Parquet file, or a whole compressed file or Arrow file.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO

from fastmix_mega.data import remote
from fastmix_mega.errors import UserError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
KINDS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
    ".text": "text",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
SMALLEST_RANGE, LARGEST_RANGE = 1 << 20, 256 << 20
"""Bytes. A plain file is cut so that a large input has about a thousand units."""

BUFFER = 1 << 20
"""Bytes. With Python's own 8 KB most lines of real text take several reads."""


@dataclass(frozen=True)
class InputFile:
    """One file, as it was when the run was planned."""

    path: str
    kind: str
    """jsonl, text, parquet or arrow."""
    compression: str | None
    size: int
    """Bytes on disk."""
    modified: int
    """Nanoseconds (in object storage a hash); with the size it tells a changed file."""

    def source(self) -> str | BinaryIO:
        """What libraries open: the path, or the object's open file."""
        return remote.open_remote(self.path) if remote.is_remote(self.path) else self.path

    def open(self) -> BinaryIO:
        """Its bytes as they are."""
        source = self.source()
        return open(source, "rb", buffering=BUFFER) if isinstance(source, str) else source


@dataclass(frozen=True)
class Unit:
    """Part of a file that one worker reads.

    For plain files `start` and `end` are bytes, and the lines that *start* in [start, end) belong
    to the unit; for Parquet they are row groups; otherwise they cover the file.
    """

    file: int
    start: int
    end: int
    weight: int
    """Bytes on disk, for the progress line."""


def list_inputs(names: Sequence[str | Path], list_file: Path | None = None) -> list[InputFile]:
    """Expand files, globs, Hugging Face folders and a list file, in the order given.

    What a glob finds is sorted by name.

    Raises:
        UserError: for what is missing, of unknown kind, or given twice.
    """
    wanted = [str(name) for name in names]
    if list_file is not None:
        try:
            lines = list_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the list {list_file}: {error}") from None
        wanted += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    found = [file for name in wanted for file in _expand(name)]
    if not found:
        raise UserError("no input: name files, globs or folders, or give --files-from LIST")
    seen: set[str] = set()
    for file in found:
        if file.path in seen:
            raise UserError(f"{file.path} is given twice; its documents would count twice")
        seen.add(file.path)
    return found


def _expand(name: str) -> Iterator[InputFile]:
    if remote.is_remote(name):
        yield from _expand_remote(name)
        return
    path = Path(name)
    if path.is_dir():
        yield from _saved_dataset(path)
    elif path.exists():
        yield _describe(path)
    elif glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise UserError(f"nothing matches {name}")
        for match in matches:
            if Path(match).is_dir():
                raise UserError(f"{match} (from {name}) is a folder; give a pattern for its files")
            yield _describe(Path(match))
    else:
        raise UserError(f"{name} does not exist")


def _expand_remote(url: str) -> Iterator[InputFile]:
    found = remote.find(url)
    if not found:
        raise UserError(f"nothing matches {url}")
    for each in found:
        kind, compression = _kind(PurePosixPath(each))
        if kind == "arrow":
            raise UserError(f"{each}: Arrow files are read from disks only; copy the folder")
        yield InputFile(each, kind, compression, *remote.size_and_version(each))


def _describe(path: Path) -> InputFile:
    status = path.stat()
    return InputFile(str(path), *_kind(path), status.st_size, status.st_mtime_ns)


def _kind(path: PurePath) -> tuple[str, str | None]:
    """What it holds, and how it is compressed."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    stem = path.with_suffix("") if compression else path
    kind = KINDS.get(stem.suffix.lower())
    if kind is None or (compression and kind in ("parquet", "arrow")):
        raise UserError(
            f"{path}: unknown kind of file; known are {', '.join(KINDS)}, and for lines also with "
            f"{', '.join(COMPRESSIONS)}"
        )
    return kind, compression


def _saved_dataset(folder: Path) -> Iterator[InputFile]:
    """The Arrow files of what `datasets` wrote with save_to_disk, in its own order."""
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = ", ".join(str(folder / name) for name in _read_json(splits).get("splits", []))
        raise UserError(f"{folder} holds several splits; give the ones you want: {names}")
    state = folder / "state.json"
    if not state.is_file():
        raise UserError(
            f"{folder} is a folder, but not one of Hugging Face datasets (no state.json); give a "
            f"pattern for its files, for example '{folder}/*.jsonl'"
        )
    content = _read_json(state)
    if content.get("_indices_data_files") or content.get("_indices_files"):
        raise UserError(f"{folder} is a selection of rows; save it after flatten_indices()")
    try:
        files = [folder / str(entry["filename"]) for entry in content["_data_files"]]
    except (KeyError, TypeError):
        raise UserError(f"{state} names no data files; save the dataset again") from None
    for path in files:
        if not path.is_file():
            raise UserError(f"{path} is missing, though {state} names it")
        yield _describe(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object")
    return content


def cut_into_units(files: Sequence[InputFile], text_unit: str) -> list[Unit]:
    """All units of a run, in the order of the documents; they depend on the files alone.

    Args:
        files: the inputs.
        text_unit: `line` or `file`: what a document is in plain text.
    """
    total = sum(file.size for file in files)
    length = min(max(total // 1024, SMALLEST_RANGE), LARGEST_RANGE)
    units: list[Unit] = []
    for number, file in enumerate(files):
        whole_text = file.kind == "text" and text_unit == "file"
        if file.kind == "parquet":
            units.extend(_row_groups(number, file))
        elif file.compression or file.kind == "arrow" or whole_text:
            units.append(Unit(number, 0, file.size, file.size))
        else:
            for start in range(0, file.size, length):
                end = min(start + length, file.size)
                units.append(Unit(number, start, end, end - start))
    return units


def _row_groups(number: int, file: InputFile) -> Iterator[Unit]:
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(file.source())
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file.path} is not a Parquet file: {_one_line(error)}") from None
    groups = metadata.num_row_groups
    for group in range(groups):
        yield Unit(number, group, group + 1, file.size // groups)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def describe_inputs(files: Sequence[InputFile]) -> list[dict[str, Any]]:
    """Plain data, for the plan."""
    return [asdict(file) for file in files]
