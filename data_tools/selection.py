"""Which documents are taken where not all are: a share, or as many as a number of tokens holds.

A document's number depends on its content and the seed alone. Equal documents stay together, more
data moves nothing, and the number of workers changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.joining import Region
from data_tools.parts import Documents, Marker, PartFile, PartLayout, PartsFolder

BINS = 1 << 16
BLOCK = 1 << 14
"""Documents that are copied together."""


@dataclass(frozen=True)
class Selection:
    """What to take; all of it by default."""

    sample: float = 1.0
    """Share of the documents."""
    max_tokens: int | None = None
    """Random documents are taken until one more would exceed this."""
    seed: int = 0

    @property
    def is_all(self) -> bool:
        return self.sample == 1.0 and self.max_tokens is None

    @property
    def limit(self) -> int:
        """Documents with a number below it belong to the sample."""
        return round(self.sample * (1 << 64))

    def draw(self, content: bytes) -> int:
        """The number of a document, from 0 to 2^64 - 1."""
        key = self.seed.to_bytes(8, "little")
        return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest(), "little")


def choose(
    parts: PartsFolder, markers: Sequence[Marker], layout: PartLayout, max_tokens: int
) -> list[Marker]:
    """Write the chosen documents of every part beside it; memory does not grow with the documents.

    Args:
        parts: with a finished part for every marker.
        markers: in the order of the documents.
        layout: of the parts, with draws.
        max_tokens: to choose at most, by the lowest draws.

    Returns:
        Markers of the files with the suffix `chosen`.
    """
    highest = _highest_draw(parts, markers, layout, max_tokens)
    chosen = []
    for marker in markers:
        regions = layout.regions(parts.part(marker.unit), marker)
        file = PartFile(parts.path, marker.unit, layout)
        try:
            kept = _copy(file, regions, layout, highest)
            left_out = marker.counts.left_out + marker.documents - kept
            counts = replace(marker.counts, left_out=left_out)
            chosen.append(file.finish(counts, "chosen"))
        except BaseException:
            file.discard()
            raise
    return chosen


def _highest_draw(
    parts: PartsFolder, markers: Sequence[Marker], layout: PartLayout, max_tokens: int
) -> int:
    """The highest draw with which all documents up to it hold at most `max_tokens`; -1 for none."""
    tokens = np.zeros(BINS, np.int64)
    shift = np.uint64(64 - BINS.bit_length() + 1)
    numbers = [_numbers(parts.part(marker.unit), marker, layout) for marker in markers]
    for draws, lengths in numbers:
        np.add.at(tokens, (draws >> shift).astype(np.int64), lengths)
    before = np.concatenate(([0], np.cumsum(tokens)))
    bin_number = int(np.searchsorted(before, max_tokens, "right")) - 1
    if bin_number >= BINS:
        return (1 << 64) - 1
    inside = [(d[d >> shift == bin_number], n[d >> shift == bin_number]) for d, n in numbers]
    draws = np.concatenate([d for d, _ in inside])
    lengths = np.concatenate([n for _, n in inside])
    values, places = np.unique(draws, return_inverse=True)
    sums = before[bin_number] + np.cumsum(np.bincount(places, lengths, len(values)))
    fitting = int(np.searchsorted(sums, max_tokens, "right"))
    return int(values[fitting - 1]) if fitting else (bin_number << int(shift)) - 1


def _numbers(
    path: Path, marker: Marker, layout: PartLayout
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    regions = layout.regions(path, marker)
    return _map(regions["draws"], np.uint64), _map(regions["lengths"], np.int32)


def _map(region: Region, dtype: type[np.generic] | np.dtype[np.generic]) -> NDArray[Any]:
    count = region.size // np.dtype(dtype).itemsize
    if not count:
        return np.empty(0, dtype)
    # A region need not start where numbers of its type may lie.
    raw = np.memmap(region.path, np.uint8, "r", region.start, (region.size,))
    return np.frombuffer(raw, dtype)


def _copy(file: PartFile, regions: dict[str, Region], layout: PartLayout, highest: int) -> int:
    """Add the documents with a draw up to `highest`; returns how many they are."""
    tokens = _map(regions["tokens"], layout.dtype)
    lengths, rows = _map(regions["lengths"], np.int32), _map(regions["rows"], np.int64)
    draws = _map(regions["draws"], np.uint64)
    mask = _map(regions["mask"], np.uint8) if layout.masked else None
    start = kept = 0
    for first in range(0, len(lengths), BLOCK):
        block = slice(first, first + BLOCK)
        wanted = (
            np.zeros(len(draws[block]), bool) if highest < 0 else draws[block] <= np.uint64(highest)
        )
        of_tokens = np.repeat(wanted, lengths[block])
        place = slice(start, start + len(of_tokens))
        start += len(of_tokens)
        if wanted.any():
            file.add(
                Documents(
                    tokens[place][of_tokens],
                    lengths[block][wanted],
                    None if mask is None else mask[place][of_tokens],
                    rows[block][wanted],
                    draws[block][wanted],
                )
            )
            kept += int(wanted.sum())
    return kept
