"""Which files a user means, of which kind they are, and into which units of work they are cut.

A unit is what one worker does in one go and what a resumed run does not do again: a byte range of a
plain file, a row group of a Parquet file, or a whole file of any other kind.
"""

from __future__ import annotations

import filecmp
import glob
import hashlib
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO

from data_tools.compression import open_decoded_start
from data_tools.outputs import identify
from data_tools.pipes import STANDARD_INPUT, Spooled, is_pipe
from fastmix_mega.data import remote
from fastmix_mega.errors import UserError
from fastmix_mega.reading import read_json

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
LINES = ("jsonl", "text")
PRETTY = re.compile(rb'\s*\{[ \t]*\r?\n\s*("(?:[^"\\\n]|\\.)*")\s*:\s*(\[)?')
"""An object that opens on one line and names its first key on the next; the key, and whether its
value is a list."""
"""Kinds of which a line is a document."""
KINDS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
    ".text": "text",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
}
SMALLEST_RANGE, LARGEST_RANGE = 1 << 20, 256 << 20
"""Bytes. A plain file is cut so that a large input has about a thousand units."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ENDS = 1 << 16
"""Bytes at either end of a file that tell it from another of the same name and size."""
BUFFER = 1 << 20
"""Bytes. With Python's own 8 KB most lines of real text take several reads."""


@dataclass(frozen=True)
class InputFile:
    """One file, as it was when the run was planned."""

    path: str
    kind: str
    """jsonl, array (one JSON array), text, csv, tsv, parquet or arrow."""
    compression: str | None
    size: int
    """Bytes on disk."""
    modified: int
    """Nanoseconds (a hash for objects and pipes); with the size it tells a changed file."""
    name: str = ""
    """What the user calls it, where that is not the path."""

    @property
    def shown(self) -> str:
        return self.name or self.path

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


def list_inputs(
    names: Sequence[str | Path],
    list_file: Path | None = None,
    pipes: Spooled | None = None,
    copies: bool = False,
) -> list[InputFile]:
    """Expand files, globs, Hugging Face folders and a list file, in the order given.

    What a glob finds is sorted by name.

    Args:
        names: what the user wrote.
        list_file: names further inputs, one a line.
        pipes: where standard input and named pipes are copied to; without it they are refused.
        copies: whether files of the same content may be given.

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
    found = [file for name in wanted for file in _expand(name, pipes)]
    if not found:
        raise UserError("no input: name files, globs or folders, or give --files-from LIST")
    require_once(found, copies)
    return [_look_inside(file) for file in found]


def require_once(files: Sequence[InputFile], copies: bool = False) -> None:
    """UserError if two files are one, or hold the same bytes and `copies` are not allowed."""
    seen: set[str] = set()
    for file in files:
        if file.path in seen:
            raise UserError(f"{file.shown} is given twice; its documents would count twice")
        seen.add(file.path)
    for later, first in identify(file.path for file in files).items():
        raise UserError(f"{later} and {first} are one file; its documents would count twice")
    if copies:
        return
    sizes: dict[int, list[InputFile]] = {}
    for file in files:
        if file.size and not remote.is_remote(file.path):
            same = sizes.setdefault(file.size, [])
            twin = next((f for f in same if filecmp.cmp(f.path, file.path, shallow=False)), None)
            if twin is not None:
                raise UserError(
                    f"{file.shown} holds the same bytes as {twin.shown}; its documents would count "
                    "twice (--allow-copies if that is meant)"
                )
            same.append(file)


def _expand(name: str, pipes: Spooled | None) -> Iterator[InputFile]:
    if remote.is_remote(name):
        yield from _expand_remote(name)
        return
    path = Path(name)
    if name == STANDARD_INPUT or is_pipe(path):
        yield _spooled(name, pipes)
    elif path.is_dir():
        yield from _saved_dataset(path)
    elif path.exists():
        yield _describe(path)
    elif glob.has_magic(name):
        yield from _matching(name)
    else:
        raise UserError(f"{name} does not exist")


def _matching(pattern: str) -> Iterator[InputFile]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise UserError(f"nothing matches {pattern}")
    for match in matches:
        if Path(match).is_dir():
            raise UserError(f"{match} (from {pattern}) is a folder; give a pattern for its files")
        if is_pipe(Path(match)):
            raise UserError(f"{match} (from {pattern}) is a pipe; name it by itself")
        if _is_our_report(Path(match)):
            print(f"{match}: left out, a tool of ours has written it", file=sys.stderr)
        else:
            yield _describe(Path(match))


def _is_our_report(path: Path) -> bool:
    """Whether a file that a pattern found is a manifest or a list that our tools write."""
    if path.name.endswith(".origins.parquet"):
        return True
    fields = {
        ".manifest.json": (b'"fastmix-tokens/',),
        ".json": (b'"fastmix-tokens/',),
        ".bad.jsonl": (b'{"file":', b'"line":', b'"reason":'),
        ".removed.jsonl": (b'{"source":', b'"target":', b'"share":'),
    }
    needed = next((marks for end, marks in fields.items() if path.name.endswith(end)), None)
    if needed is None:
        return False
    with path.open("rb") as file:
        start = file.readline(1 << 20) if path.suffix == ".jsonl" else file.read(4096)
    return start.startswith(b"{") and all(mark in start for mark in needed)


def _spooled(name: str, pipes: Spooled | None) -> InputFile:
    if pipes is None:
        raise UserError(f"{name}: this tool reads no pipes; write the text to a file")
    path, digest = pipes.copy(name)
    start = path.open("rb").read(6)
    marks = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
    compression = next((kind for mark, kind in marks.items() if start.startswith(mark)), None)
    suffixes = [suffix for suffix in PurePath(name).suffixes if suffix.lower() in KINDS]
    kind = KINDS[suffixes[-1].lower()] if suffixes else pipes.kind
    # Named by its content: the same text piped again goes on with an unfinished run.
    modified = int(digest[:14], 16)
    return InputFile(str(path), kind, compression, path.stat().st_size, modified, name)


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
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is a device, not a file; pipe its text and name -")
    return InputFile(str(path), *_kind(path), status.st_size, status.st_mtime_ns)


def _look_inside(file: InputFile) -> InputFile:
    """Correct the kind by the first bytes: a JSON array is not JSON lines.

    Raises:
        UserError: for a compressed file of no bytes, UTF-16, and JSON over several lines.
    """
    if file.compression and not file.size:
        raise UserError(f"{file.shown} is empty: not even the start of a compressed file")
    if file.kind in ("parquet", "arrow"):
        return file
    try:
        start = open_decoded_start(file.source(), file.compression)
    except (OSError, EOFError, ValueError):
        # Whoever reads the file says what is wrong with it.
        return file
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{file.shown} is UTF-16; make it UTF-8: iconv -f UTF-16 -t UTF-8")
    if file.kind == "jsonl" and (pretty := PRETTY.match(start.removeprefix(BYTE_ORDER_MARK))):
        filter_ = f"'.[{pretty[1].decode(errors='replace')}][]'" if pretty[2] else "."
        raise UserError(
            f"{file.shown} is pretty-printed: its JSON goes over several lines, but a document is "
            f"one line. Make it so: jq -c {filter_} {file.shown} > NEW.jsonl"
        )
    is_array = start.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[")
    return replace(file, kind="array") if file.kind == "jsonl" and is_array else file


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
        content = read_json(path)
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
        elif file.compression or file.kind not in LINES or whole_text:
            units.append(Unit(file=number, start=0, end=file.size, weight=file.size))
        else:
            for start in range(0, file.size, length):
                end = min(start + length, file.size)
                units.append(Unit(file=number, start=start, end=end, weight=end - start))
    return units


def _row_groups(number: int, file: InputFile) -> Iterator[Unit]:
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(file.source())
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file.shown} is not a Parquet file: {_one_line(error)}") from None
    groups = metadata.num_row_groups
    for group in range(groups):
        yield Unit(file=number, start=group, end=group + 1, weight=file.size // groups)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def mark_inputs(files: Sequence[InputFile]) -> list[list[Any]]:
    """By what the same inputs are known again: names, sizes, and a digest of both ends.

    Neither folders nor times count, so that the same data gives the same manifest everywhere.
    """
    return [[PurePath(file.shown).name, file.size, _mark(file)] for file in files]


def _mark(file: InputFile) -> str:
    if file.name or remote.is_remote(file.path):
        return str(file.modified)
    digest = hashlib.sha256()
    with file.open() as stream:
        digest.update(stream.read(ENDS))
        if file.size > ENDS:
            stream.seek(max(ENDS, file.size - ENDS))
            digest.update(stream.read(ENDS))
    return digest.hexdigest()


def describe_inputs(files: Sequence[InputFile]) -> list[dict[str, Any]]:
    """Plain data, for the plan; a pipe's copy has another path every time."""
    return [asdict(replace(file, path=file.shown)) for file in files]
