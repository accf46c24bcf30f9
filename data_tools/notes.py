"""What a run tells its user at the end, besides bad lines: each thing once, with its count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping


def add_notes(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The notes of all parts of a run, in the order of their words."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items()))
