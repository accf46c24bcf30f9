"""Lines that are no documents: how many a run bears, in which files they are, and their list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from data_tools.inputs import LINES, InputFile, Unit
from data_tools.parts import Marker
from data_tools.readers import lines_before
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_atomic


@dataclass(frozen=True)
class BadLimits:
    """What ends a run."""

    max_bad: int = 0
    """Bad lines to tolerate in all."""
    max_share: float = 0.5
    """Of a file's lines, or of its bytes, that may be bad."""
    allow_empty: bool = False
    """Whether a run may have no document at all."""


@dataclass
class _FileCount:
    lines: int = 0
    bad: int = 0
    bad_bytes: int = 0
    units_left: int = 0


class BadLines:
    """Counts the bad lines of a run by file, and ends it when there are too many.

    Args:
        files: inputs of the run.
        units: all units of the files.
        wanted: those that this run does.
        limits: what it bears.
    """

    def __init__(
        self,
        files: Sequence[InputFile],
        units: Sequence[Unit],
        wanted: Iterable[int],
        limits: BadLimits,
    ) -> None:
        self._files, self._units, self._limits = files, units, limits
        self._markers: dict[int, Marker] = {}
        self._counts = [_FileCount() for _ in files]
        self._shared = len(list(wanted)) < len(units)
        for number in wanted:
            self._counts[units[number].file].units_left += 1

    @property
    def total(self) -> int:
        return sum(count.bad for count in self._counts)

    def add(self, marker: Marker) -> None:
        """Count a finished unit.

        Raises:
            UserError: if there are more bad lines than the limits allow.
        """
        place = self._units[marker.unit].file
        count = self._counts[place]
        count.lines += marker.counts.lines - marker.counts.blank
        count.bad += len(marker.counts.problems)
        count.bad_bytes += marker.counts.bad_bytes
        count.units_left -= 1
        self._markers[marker.unit] = marker
        if self.total > self._limits.max_bad:
            self._refuse_all()
        if not count.units_left:
            self._require_mostly_good(place)

    def by_file(self) -> dict[str, int]:
        """Bad lines of the files that have any."""
        counted = zip(self._files, self._counts, strict=True)
        return {file.shown: count.bad for file, count in counted if count.bad}

    def _refuse_all(self) -> None:
        found = [line for marker in self._in_order() for line in self._named(marker)]
        worst = found[min(self._limits.max_bad, len(found) - 1)]
        raise UserError(
            f"{worst['file']}:{worst['line']}: {worst['reason']} ({self.total} bad line(s) so far, "
            f"--max-bad is {self._limits.max_bad}); mend it, or raise --max-bad"
        )

    def _require_mostly_good(self, place: int) -> None:
        file, count = self._files[place], self._counts[place]
        # Of a compressed file, and of a share of a file, the bytes read are not known.
        countable = file.kind in LINES and not file.compression and not self._shared
        if count.bad > self._limits.max_share * count.lines:
            what = f"{count.bad} of its {count.lines} lines are"
        elif countable and count.bad_bytes > self._limits.max_share * file.size:
            what = f"{count.bad_bytes:,} of its {file.size:,} bytes are in lines that are"
        else:
            return
        first = next(
            line
            for marker in self._in_order()
            if self._units[marker.unit].file == place
            for line in self._named(marker)
        )
        raise UserError(
            f"{file.shown}: {what} bad, the first is line {first['line']}: {first['reason']}; is "
            "it of another format? Mend it, leave it out, or raise --max-bad-share"
        )

    def _in_order(self) -> list[Marker]:
        return [self._markers[unit] for unit in sorted(self._markers)]

    def _named(self, marker: Marker) -> list[dict[str, Any]]:
        """The problems of a unit, by the lines of the file."""
        if not marker.counts.problems:
            return []
        unit = self._units[marker.unit]
        file = self._files[unit.file]
        first = lines_before(file, unit)
        return [
            {"file": file.shown, "line": first + line, "reason": reason}
            for line, reason in marker.counts.problems
        ]

    def write(self, path: Path) -> None:
        """List them all, or remove a list of an earlier run."""
        bad = [line for marker in self._in_order() for line in self._named(marker)]
        if bad:
            write_atomic(path, b"".join(orjson.dumps(line) + b"\n" for line in bad))
        else:
            path.unlink(missing_ok=True)
