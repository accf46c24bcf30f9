"""Results in one JSON file a run, as they were kept before, into one JSONL file a study.

    python -m research.convert_results [RESULTS]

Converts what it finds below the folder, adds it to the JSONL files that are there, and removes the
JSON files once every line is on the disk. Started again it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastmix_mega.errors import UserError
from research.study_file import StudyFile

Row = dict[str, Any]


def convert(results: Path) -> int:
    """Convert all three studies; returns how many files there were.

    Raises:
        UserError: if a run is in the JSONL file already, with other content.
    """
    count = _convert(results / "transfer.jsonl", sorted((results / "transfer").glob("*.json")))
    forks = sorted((results / "fork_test").glob("*.json"))
    count += _convert(results / "fork_test.jsonl", forks)
    for stamp in sorted((results / "mixture_quality").glob("*/family.json")):
        folder = stamp.parent
        runs = [*sorted(folder.glob("searches/*.json")), *sorted(folder.glob("trainings/*.json"))]
        count += _convert(folder.with_suffix(".jsonl"), [stamp, *runs])
    return count


def _convert(file: Path, paths: list[Path]) -> int:
    study = StudyFile(file)
    known = {_key(row): row for row in study.rows()}
    for path in paths:
        for row in _rows(path):
            there = known.setdefault(_key(row), row)
            if there is row:
                study.append(row)
            elif there != row:
                raise UserError(f"{file} holds another result than {path}; remove one of them")
    for path in paths:
        path.unlink()
    for folder in sorted({path.parent for path in paths}, reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    return len(paths)


def _rows(path: Path) -> Iterator[Row]:
    content = json.loads(path.read_bytes())
    if path.name == "family.json":
        yield {"family": content}
    elif path.parent.name == "fork_test":
        repetitions = [point.pop("repetitions") for point in content["points"]]
        yield {"run": path.stem} | content
        for place, found in enumerate(repetitions):
            for row in found:
                yield {"run": path.stem, "point": place} | row
    else:
        yield content


def _key(row: Row) -> str:
    """What a row is of: alike in two rows that must not both be there."""
    if "point" in row:
        return json.dumps(row)
    names = ("kind", "name", "seed") if "kind" in row else ("job", "run")
    return json.dumps([row[name] for name in names if name in row])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="?", default=Path("research/results"))
    try:
        print(f"{convert(parser.parse_args().results)} files converted")
    except UserError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
