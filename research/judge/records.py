"""Records of a study: one line of JSON for every finished run, in one file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Record:
    """One finished run."""

    kind: str
    """`train` or `search`."""
    family: str
    name: str
    seed: int
    weights: list[float]
    """[S] trained on, or found."""
    losses: dict[str, float]
    """By target, nats per token on text that no search sees."""
    bigram_losses: dict[str, float] = field(default_factory=dict)
    """What the bigram law says of the same mixture, text and budget; trainings only."""
    cost: float = 1.0
    """In proxy runs, by operation counts."""
    seconds: float = 0.0
    """Of the processor."""
    settings: list[str] = field(default_factory=list)
    standard_errors: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    """Of a search, a row for every outer step."""


class Records:
    """Those of one file; what is added is written at once.

    Args:
        path: FILE.jsonl, made when the first record is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[tuple[str, str, str, int], Record] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                record = Record(**json.loads(line))
                self._found[record.kind, record.family, record.name, record.seed] = record

    def get(self, kind: str, family: str, name: str, seed: int) -> Record | None:
        return self._found.get((kind, family, name, seed))

    def add(self, record: Record) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        self._found[record.kind, record.family, record.name, record.seed] = record

    def of(self, kind: str, family: str) -> Iterator[Record]:
        return (
            each for each in self._found.values() if each.kind == kind and each.family == family
        )
