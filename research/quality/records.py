"""What the judge keeps: one small JSON file for every finished run, in a folder that is committed.

    RESULTS/FAMILY/family.json            what the runs belong to: sources, targets, corpora
    RESULTS/FAMILY/searches/NAME.json     a search: its mixture and its cost
    RESULTS/FAMILY/trainings/NAME.json    a training by sampling: its losses on every target

Names are those of jobs (`jobs.py`). A record is written whole or not at all.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastmix_mega.errors import UserError
from fastmix_mega.files import write_atomic, write_json

Kind = Literal["search", "train"]
FOLDERS: dict[Kind, str] = {"search": "searches", "train": "trainings"}


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


class Records:
    """The records of one family.

    Args:
        folder: RESULTS/FAMILY.
        identity: what the records belong to; written when the folder is new.

    Raises:
        UserError: if the folder holds the records of something else.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        stamp = folder / "family.json"
        if stamp.is_file():
            known = json.loads(stamp.read_bytes())
            other = [key for key in identity if known.get(key) != identity[key]]
            if other:
                raise UserError(
                    f"{folder} holds runs that differ in {', '.join(other)} (corpora are the text "
                    "of installed packages, which differ between installations); give another "
                    "--results folder"
                )
        else:
            write_json(stamp, identity)
        self._found: dict[tuple[Kind, str, int], Record] = {}
        for kind, name in FOLDERS.items():
            for path in sorted((folder / name).glob("*.json")):
                record = Record(**json.loads(path.read_bytes()))
                self._found[kind, record.name, record.seed] = record

    def get(self, kind: Kind, name: str, seed: int) -> Record | None:
        return self._found.get((kind, name, seed))

    def add(self, record: Record) -> None:
        path = self.folder / FOLDERS[record.kind] / f"{record.name}@{record.seed}.json"
        write_atomic(path, json.dumps(asdict(record)) + "\n")
        self._found[record.kind, record.name, record.seed] = record

    def trainings(self, name: str) -> dict[int, Record]:
        """By seed."""
        found = self._found.values()
        return {each.seed: each for each in found if each.kind == "train" and each.name == name}

    def all(self) -> list[Record]:
        return list(self._found.values())
