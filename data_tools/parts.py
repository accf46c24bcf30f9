"""The parts of a run under way: `<prefix>.parts/`, one finished part per unit, and the plan.

A part is two files: its tokens, their loss mask where there is one, and its lengths; and the
marker, which is written last and holds counts, problems and a checksum. A run that was killed goes
on from the markers; a part whose checksum is wrong (a crash of the machine can tear it) is made
again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Sequence
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
class Marker:
    """What a finished part holds."""

    unit: int
    documents: int
    tokens: int
    lines: int
    """Lines or rows read, problems included."""
    text_bytes: int
    """UTF-8 bytes of the texts."""
    checksum: int
    """CRC-32 of the part's file."""
    problems: list[tuple[int, str]]
    """Line within the unit, from 1, and reason."""
    notes: dict[str, int] = field(default_factory=dict)
    """What else the user should know, and how often that was so."""


class PartFile:
    """One part while it is written; memory holds the lengths, never the tokens.

    Args:
        folder: of the run's parts.
        unit: its number.
        dtype: of the tokens.
        masked: whether documents come with a loss mask.
    """

    def __init__(self, folder: Path, unit: int, dtype: np.dtype[Any], masked: bool = False) -> None:
        self._folder, self._unit, self._dtype = folder, unit, dtype
        self._partial = folder / f"{unit:08}.{os.getpid()}.partial"
        self._file = self._partial.open("wb")
        # Without a name: gone by itself if this process dies.
        self._masks: IO[bytes] | None = (
            tempfile.TemporaryFile(dir=folder) if masked else None  # noqa: SIM115
        )
        self._checksum = 0
        self._lengths: list[NDArray[np.int32]] = []
        self._tokens = 0

    def add(
        self,
        tokens: NDArray[Any],
        lengths: NDArray[np.int32],
        masks: NDArray[np.uint8] | None = None,
    ) -> None:
        """Append documents: their tokens and masks end to end, and the tokens of each."""
        self._write(np.ascontiguousarray(tokens, self._dtype).tobytes())
        assert (masks is not None) == (self._masks is not None)
        if self._masks is not None and masks is not None:
            assert len(masks) == len(tokens)
            try:
                self._masks.write(masks.tobytes())
            except OSError as error:
                error.filename = str(self._folder)
                raise
        self._lengths.append(lengths)
        self._tokens += len(tokens)

    def _write(self, content: bytes) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            # Python names no file when a write fails; the user needs to know which disk is full.
            error.filename = str(self._partial)
            raise
        self._checksum = zlib.crc32(content, self._checksum)

    def finish(
        self,
        lines: int,
        text_bytes: int,
        problems: list[tuple[int, str]],
        notes: dict[str, int] | None = None,
    ) -> Marker:
        """Give the part its final name, then write its marker."""
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, np.int32)
        if self._masks is not None:
            self._masks.seek(0)
            while block := self._masks.read(BLOCK):
                self._write(block)
            self._masks.close()
        self._write(lengths.tobytes())
        try:
            self._file.close()
        except OSError as error:
            error.filename = str(self._partial)
            raise
        os.replace(self._partial, self._folder / f"{self._unit:08}.part")
        marker = Marker(
            self._unit,
            len(lengths),
            self._tokens,
            lines,
            text_bytes,
            self._checksum,
            problems,
            notes or {},
        )
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
        self.path = Path(f"{prefix}.parts")
        if fresh and self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        plan_path = self.path / "plan.json"
        known = self._read_plan(plan_path)
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

    @staticmethod
    def _read_plan(path: Path) -> dict[str, Any] | None:
        try:
            content = orjson.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except orjson.JSONDecodeError:
            return {}
        return content if isinstance(content, dict) else {}

    def finished(
        self, unit_count: int, dtype: np.dtype[Any], masked: bool = False
    ) -> dict[int, Marker]:
        """The markers of whole parts, by unit. Every part is read and its checksum compared."""
        width = dtype.itemsize + masked
        found: dict[int, Marker] = {}
        for path in sorted(self.path.glob("*.json")):
            if not path.stem.isdigit():
                continue
            try:
                marker = Marker(**orjson.loads(path.read_bytes()))
            except (orjson.JSONDecodeError, TypeError):
                continue
            if marker.unit < unit_count and self._is_whole(marker, width):
                found[marker.unit] = marker
        return found

    def _is_whole(self, marker: Marker, width: int) -> bool:
        """`width`: bytes per token, its loss mask included."""
        path = self.path / f"{marker.unit:08}.part"
        try:
            if path.stat().st_size != marker.tokens * width + 4 * marker.documents:
                return False
            checksum = 0
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    checksum = zlib.crc32(block, checksum)
        except OSError:
            return False
        return checksum == marker.checksum

    def pieces(
        self, markers: Sequence[Marker], dtype: np.dtype[Any], masked: bool = False
    ) -> list[Piece]:
        """What `join` needs, in the markers' order."""
        pieces = []
        for marker in markers:
            path = self.path / f"{marker.unit:08}.part"
            size = marker.tokens * dtype.itemsize
            mask = Region(path, size, marker.tokens) if masked else None
            lengths = Region(path, size + marker.tokens * masked, 4 * marker.documents)
            pieces.append(Piece(Region(path, 0, size), lengths, mask=mask))
        return pieces

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
