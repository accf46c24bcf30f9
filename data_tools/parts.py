"""The parts of a run under way: `<prefix>.parts/`, one finished part per unit, and the plan.

A part is two files: its tokens, their loss mask where there is one, its lengths and the rows that
its documents come from; and the marker, which is written last and holds counts, problems and a
checksum. A run that was killed goes on from the markers; a part whose checksum is wrong (a crash of
the machine can tear it) is made again.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from data_tools.joining import Piece, Region
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_json

BLOCK = 4 << 20


@dataclass(frozen=True)
class Counts:
    """What was read for a part."""

    lines: int = 0
    """Lines or rows, problems included."""
    text_bytes: int = 0
    """UTF-8 bytes of the texts."""
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Line within the unit, from 1, and reason."""
    bad_bytes: int = 0
    """Of the lines that are no documents, where they are known."""
    blank: int = 0
    """Lines of nothing."""
    left_out: int = 0
    """Documents that --sample or --max-tokens did not draw."""
    notes: dict[str, int] = field(default_factory=dict)
    """What else the user should know, and how often that was so."""


@dataclass(frozen=True)
class Marker:
    """What a finished part holds."""

    unit: int
    documents: int
    tokens: int
    checksum: int
    """CRC-32 of the part's file."""
    counts: Counts

    @classmethod
    def read(cls, path: Path) -> Marker | None:
        """The marker in a file; None if it is torn, or of another version."""
        try:
            content = orjson.loads(path.read_bytes())
            return cls(**content | {"counts": Counts(**content["counts"])})
        except (orjson.JSONDecodeError, TypeError, KeyError):
            return None


@dataclass(frozen=True)
class PartLayout:
    """What lies in the file of a part, one after the other."""

    dtype: np.dtype[Any]
    """Of the tokens."""
    masked: bool = False
    """Whether a loss mask follows the tokens, uint8."""
    drawn: bool = False
    """Whether a random number of each document, uint64, comes last."""

    def regions(self, path: Path, marker: Marker) -> dict[str, Region]:
        """tokens, mask, lengths (int32), rows (int64), draws."""
        sizes = {
            "tokens": marker.tokens * self.dtype.itemsize,
            "mask": marker.tokens * self.masked,
            "lengths": 4 * marker.documents,
            "rows": 8 * marker.documents,
            "draws": 8 * marker.documents * self.drawn,
        }
        found, start = {}, 0
        for name, size in sizes.items():
            found[name] = Region(path, start, size)
            start += size
        return found

    def size(self, marker: Marker) -> int:
        """Bytes of the whole file."""
        return sum(region.size for region in self.regions(Path(), marker).values())

    def piece(self, path: Path, marker: Marker) -> Piece:
        """What `join` needs."""
        regions = self.regions(path, marker)
        mask = regions["mask"] if self.masked else None
        return Piece(regions["tokens"], regions["lengths"], mask=mask)


@dataclass(frozen=True)
class Documents:
    """Documents that are added to a part, end to end."""

    tokens: NDArray[Any]
    lengths: NDArray[np.int32]
    """[documents] tokens of each."""
    mask: NDArray[np.uint8] | None
    """[tokens], of conversations."""
    rows: NDArray[np.int64]
    """[documents] line or row within the unit, from 1."""
    draws: NDArray[np.uint64] | None = None
    """[documents], where documents are chosen by them later."""


class PartFile:
    """One part while it is written; memory holds what is small, never the tokens.

    Args:
        folder: of the run's parts.
        unit: its number.
        layout: of the file.
    """

    def __init__(self, folder: Path, unit: int, layout: PartLayout) -> None:
        self._folder, self._unit, self._layout = folder, unit, layout
        self._partial = folder / f"{unit:08}.{os.getpid()}.partial"
        self._file = self._partial.open("wb")
        # Without a name: gone by itself if this process dies.
        self._masks: IO[bytes] | None = (
            tempfile.TemporaryFile(dir=folder) if layout.masked else None  # noqa: SIM115
        )
        self._checksum = self._documents = self._tokens = 0
        self._ends: dict[str, list[bytes]] = {"lengths": [], "rows": [], "draws": []}

    def add(self, documents: Documents) -> None:
        """Append documents."""
        self._write(np.ascontiguousarray(documents.tokens, self._layout.dtype).tobytes())
        assert (documents.mask is not None) == (self._masks is not None)
        if self._masks is not None and documents.mask is not None:
            assert len(documents.mask) == len(documents.tokens)
            try:
                self._masks.write(documents.mask.tobytes())
            except OSError as error:
                error.filename = str(self._folder)
                raise
        self._ends["lengths"].append(documents.lengths.astype(np.int32).tobytes())
        self._ends["rows"].append(documents.rows.astype(np.int64).tobytes())
        assert (documents.draws is not None) == self._layout.drawn
        if documents.draws is not None:
            self._ends["draws"].append(documents.draws.tobytes())
        self._documents += len(documents.lengths)
        self._tokens += len(documents.tokens)

    def _write(self, content: bytes) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            # Python names no file when a write fails; the user needs to know which disk is full.
            error.filename = str(self._partial)
            raise
        self._checksum = zlib.crc32(content, self._checksum)

    def finish(self, counts: Counts, suffix: str = "part") -> Marker:
        """Give the part its final name, then write its marker."""
        if self._masks is not None:
            self._masks.seek(0)
            while block := self._masks.read(BLOCK):
                self._write(block)
            self._masks.close()
        for kept in self._ends.values():
            self._write(b"".join(kept))
        try:
            self._file.close()
        except OSError as error:
            error.filename = str(self._partial)
            raise
        os.replace(self._partial, self._folder / f"{self._unit:08}.{suffix}")
        marker = Marker(
            unit=self._unit,
            documents=self._documents,
            tokens=self._tokens,
            checksum=self._checksum,
            counts=counts,
        )
        if suffix == "part":
            unfinished = self._folder / f"{self._unit:08}.{os.getpid()}.marker"
            unfinished.write_bytes(orjson.dumps(asdict(marker)))
            os.replace(unfinished, self._folder / f"{self._unit:08}.json")
        return marker

    def discard(self) -> None:
        for file in (self._file, self._masks):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        with contextlib.suppress(FileNotFoundError):
            self._partial.unlink()


class PartsFolder:
    """The folder `<prefix>.parts` of one planned run.

    Args:
        prefix: of the result.
        plan: everything that the result depends on, as plain data.
        fresh: throw away what an earlier run left.

    Raises:
        UserError: if parts of another plan lie there.
    """

    def __init__(self, prefix: Path, plan: dict[str, Any], fresh: bool) -> None:
        self.path = parts_path(prefix)
        require_parts_folder(self.path)
        if fresh:
            self.remove()
        self.path.mkdir(parents=True, exist_ok=True)
        plan_path = self.path / PLAN
        known = read_plan(prefix)
        if known is None:
            write_json(plan_path, plan)
        elif known != orjson.loads(orjson.dumps(plan)):
            if not any(self.path.glob("*.part")):
                write_json(plan_path, plan)
                return
            changed = sorted(key for key in plan if known.get(key) != plan[key])
            raise UserError(
                f"{self.path} holds parts of a run with other {', '.join(changed) or 'settings'}; "
                "run with the same inputs and settings to go on, or with --fresh to start anew"
            )

    def finished(self, unit_count: int, layout: PartLayout) -> dict[int, Marker]:
        """The markers of whole parts, by unit. Every part is read and its checksum compared."""
        found: dict[int, Marker] = {}
        for path in sorted(self.path.glob("*.json")):
            if not path.stem.isdigit():
                continue
            marker = Marker.read(path)
            if marker is not None and marker.unit < unit_count and self._is_whole(marker, layout):
                found[marker.unit] = marker
        return found

    def part(self, unit: int, suffix: str = "part") -> Path:
        """The file of a unit."""
        return self.path / f"{unit:08}.{suffix}"

    def _is_whole(self, marker: Marker, layout: PartLayout) -> bool:
        path = self.part(marker.unit)
        try:
            if path.stat().st_size != layout.size(marker):
                return False
            checksum = 0
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    checksum = zlib.crc32(block, checksum)
        except OSError:
            return False
        return checksum == marker.checksum

    def pieces(
        self, markers: Sequence[Marker], layout: PartLayout, suffix: str = "part"
    ) -> list[Piece]:
        """What `join` needs, in the markers' order."""
        return [layout.piece(self.part(marker.unit, suffix), marker) for marker in markers]

    def remove(self) -> None:
        """Remove the files of the run, and the folder if nothing else is in it."""
        for path in _entries(self.path):
            if _OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()


PLAN = "plan.json"
_OURS = re.compile(
    r"plan\.json|\.plan\.json\..*|\d{8}\.(part|chosen|json)|\d{8}\.\d+\.(partial|marker)"
)
"""Names of the files in such a folder."""


def parts_path(prefix: Path) -> Path:
    return Path(f"{prefix}.parts")


def _entries(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(folder.iterdir())


def require_parts_folder(path: Path) -> None:
    """UserError if something stands at `path` that is not a folder of parts."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        raise UserError(f"{path} is not a folder of ours; move it, or name another output")
    for entry in _entries(path):
        if not _OURS.fullmatch(entry.name) or entry.is_symlink() or not entry.is_file():
            raise UserError(
                f"{path} would hold unfinished work, but {entry.name} is not ours; move it, or "
                "name another output"
            )
    plan = path / PLAN
    if plan.exists() and not _is_plan(plan):
        raise UserError(f"{plan} is not a plan of ours; move it, or name another output")
    if any(_entries(path)) and not plan.exists():
        raise UserError(f"{path} has no {PLAN}; move it, or name another output")


def _is_plan(path: Path) -> bool:
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return False
    return isinstance(content, dict) and {"format", "inputs", "tokenizer"} <= set(content)


def read_plan(prefix: Path) -> dict[str, Any] | None:
    """The plan of an unfinished run; {} for one that cannot be read, None where there is none."""
    try:
        content = orjson.loads((parts_path(prefix) / PLAN).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}
