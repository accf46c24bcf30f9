"""Runs that others made with many mixtures, as evidence: what each mixture was, and its losses.

olmix writes a swarm as two tables: ratios.csv (a row a run: its mixture) and metrics.csv (a row a
run: its losses), joined by `run` or `run_id`. They become one JSON file, `fastmix-evidence/1`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmix_mega.errors import UserError
from fastmix_mega.files import write_json
from fastmix_mega.output_file import ResultFile, require_output_file
from fastmix_mega.reading import read_json

SCHEMA = "fastmix-evidence/1"
ABOUT_A_RUN = ("run", "run_id", "name", "index")
"""Columns that hold no ratio and no metric; unnamed ones hold none either."""
TOLERANCE = 0.01
"""How far ratios may be from a sum of 1; olmix allows the same."""


@dataclass(frozen=True)
class Table:
    columns: list[str]
    rows: dict[str, list[float | None]]
    """By run; None for an empty cell."""
    without_run: int


def import_olmix(ratios: Path, metrics: Path, output: Path | ResultFile) -> list[str]:
    """Write the evidence file; returns what to tell.

    Raises:
        UserError: if a table is broken, no run is in both, or a mixture does not sum to 1.
    """
    output = require_output_file(output, [ratios, metrics])
    mixtures, losses = read_table(ratios), read_table(metrics)
    runs = [run for run in mixtures.rows if run in losses.rows]
    if not runs:
        raise UserError(f"no run of {ratios} is in {metrics}; both must come from one swarm")
    entries, lines = [], []
    for run in runs:
        shares = _mixture(mixtures.rows[run], ratios, run)
        found = dict(zip(losses.columns, losses.rows[run], strict=True))
        entries.append(
            {
                "run": run,
                "mixture": dict(zip(mixtures.columns, shares, strict=True)),
                "metrics": {name: value for name, value in found.items() if value is not None},
            }
        )
    for path, table in ((ratios, mixtures), (metrics, losses)):
        only = sorted(set(table.rows) - set(runs))
        if only:
            lines.append(f"left out, since the other table does not have them: {', '.join(only)}")
        if table.without_run:
            lines.append(f"{path}: {table.without_run} rows without a run were left out")
    empty = sum(len(losses.columns) - len(entry["metrics"]) for entry in entries)
    if empty:
        lines.append(f"{empty} metrics are empty or no finite numbers, and are left out")
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "values",
        "origin": [str(ratios), str(metrics)],
        "sources": mixtures.columns,
        "metrics": losses.columns,
        "runs": entries,
    }
    write_json(output, content)
    return [
        *lines,
        f"{len(runs)} runs, {len(mixtures.columns)} sources, {len(losses.columns)} metrics as they "
        "are (olmix's are bits per byte of tasks, lower is better, and no nats per token)",
        str(output),
    ]


def read_evidence(path: Path) -> Mapping[str, Any]:
    """The content of an evidence file. Raises: UserError."""
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot read the evidence {path}: {reason}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UserError(f"{path} is no evidence file of the schema {SCHEMA}")
    return content


def read_table(path: Path) -> Table:
    """A CSV of numbers by run. Raises: UserError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise UserError(f"cannot read {path}: {reason}") from None
    reader = csv.DictReader(io.StringIO(text))
    names = list(reader.fieldnames or [])
    key = next((name for name in ("run", "run_id") if name in names), None)
    if key is None:
        raise UserError(f"{path} has no column run or run_id")
    if len(set(names)) < len(names):
        raise UserError(f"{path} has a column twice")
    columns = [
        name
        for name in names
        if name and name not in ABOUT_A_RUN and not name.startswith("Unnamed")
    ]
    if not columns:
        raise UserError(f"{path} has no columns of numbers")
    rows: dict[str, list[float | None]] = {}
    without = 0
    for row in reader:
        run = (row.get(key) or "").strip()
        if not run:
            without += 1
            continue
        if run in rows:
            raise UserError(f"{path}: the run {run} stands twice")
        rows[run] = [_cell(row.get(name)) for name in columns]
    return Table(columns, rows, without)


def _cell(text: str | None) -> float | None:
    """None for what is empty or no finite number, as olmix leaves it out."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _mixture(row: Sequence[float | None], path: Path, run: str) -> list[float]:
    if any(value is None or value < 0 for value in row):
        raise UserError(f"{path}: run {run} has a ratio that is empty, negative or no number")
    shares = [value or 0.0 for value in row]
    total = sum(shares)
    if abs(total - 1) > TOLERANCE:
        raise UserError(f"{path}: the ratios of run {run} sum to {total:.4g}, not to 1")
    return [share / total for share in shares]
