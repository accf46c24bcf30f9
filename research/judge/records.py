"""Records of a study: one line of JSON for every finished run, in one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastmix_mega.errors import UserError
from research.study_file import StudyFile

IDENTITY = "identity"
"""The kind of the line that says what a family's runs belong to."""


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
        others: files of former studies, of nearly the same corpora: never added to.
    """

    def __init__(self, path: Path, others: Sequence[Path] = ()) -> None:
        self._file = StudyFile(path)
        self.others = [Records(other) for other in others]
        self._identities: dict[str, dict[str, Any]] = {}
        self._found: dict[tuple[str, str, str, int], Record] = {}
        for row in self._file.rows():
            if row["kind"] == IDENTITY:
                self._identities[row["family"]] = row[IDENTITY]
            else:
                self._keep(Record(**row))

    def _keep(self, record: Record) -> None:
        self._found[record.kind, record.family, record.name, record.seed] = record

    def belong_to(self, family: str, identity: dict[str, Any]) -> None:
        """Before a family's first record, and whenever more are to follow.

        Args:
            family: its name.
            identity: what its losses depend on.

        Raises:
            UserError: if the family's records were made of something else.
        """
        known = self._identities.get(family)
        if known is None:
            self._file.append({"kind": IDENTITY, "family": family, IDENTITY: identity})
            self._identities[family] = identity
            return
        other = [key for key in identity if known.get(key) != identity[key]]
        if other:
            raise UserError(
                f"{self._file.path} holds runs of {family} that differ in {', '.join(other)} "
                "(corpora are the text of installed packages, which differ between "
                "installations); give another --results file"
            )

    def get(self, kind: str, family: str, name: str, seed: int) -> Record | None:
        return self._found.get((kind, family, name, seed))

    def add(self, record: Record) -> None:
        self._file.append(asdict(record))
        self._keep(record)

    def of(self, kind: str, family: str) -> Iterator[Record]:
        return (
            each for each in self._found.values() if each.kind == kind and each.family == family
        )
