"""What the judge keeps: a line for every finished run, in one file a family that is committed.

RESULTS/FAMILY.jsonl begins with what the runs belong to, `{"family": {sources, targets, ...}}`.
Every other line is a `Record`: of a search its mixture and its cost, of a training by sampling its
losses on every target. Names are those of jobs (`jobs.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastmix_mega.errors import UserError
from research.study_file import StudyFile

Kind = Literal["search", "train"]


@dataclass(frozen=True)
class Record:
    """One finished run."""

    kind: Kind
    name: str
    seed: int
    weights: list[float]
    """[S] what was found, or what was trained on."""
    losses: dict[str, float] = field(default_factory=dict)
    """By target, nats per token on text that no search sees; trainings only."""
    cost: float = 1.0
    """In proxy runs, outer loop included, by operation counts."""
    cpu_seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    """Searches only: what the mixture file says of its noise."""

    @property
    def key(self) -> tuple[Kind, str, int]:
        return self.kind, self.name, self.seed


class Records:
    """The records of one family.

    Args:
        path: RESULTS/FAMILY.jsonl; made with the first record.
        identity: what the records belong to.

    Raises:
        UserError: if the file is damaged or holds the records of something else.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.identity = identity
        self._file = StudyFile(path)
        self._has_identity = False
        found = []
        for row in self._file.rows():
            if "family" in row:
                self._require_same(row["family"])
                self._has_identity = True
            else:
                found.append(Record(**row))
        # Tables must not depend on the order in which the runs happened to finish.
        found.sort(key=lambda record: (record.kind, f"{record.name}@{record.seed}"))
        self._found = {record.key: record for record in found}

    def _require_same(self, known: dict[str, Any]) -> None:
        other = [key for key, value in self.identity.items() if known.get(key) != value]
        if other:
            raise UserError(
                f"{self._file.path} holds runs that differ in {', '.join(other)} (corpora are the "
                "text of installed packages, which differ between installations); give another "
                "--results folder"
            )

    def get(self, kind: Kind, name: str, seed: int) -> Record | None:
        return self._found.get((kind, name, seed))

    def add(self, record: Record) -> None:
        if not self._has_identity:
            self._file.append({"family": self.identity})
            self._has_identity = True
        self._file.append(asdict(record))
        self._found[record.key] = record

    def trainings(self, name: str) -> dict[int, Record]:
        """By seed."""
        found = self._found.values()
        return {each.seed: each for each in found if each.kind == "train" and each.name == name}

    def all(self) -> list[Record]:
        return list(self._found.values())
