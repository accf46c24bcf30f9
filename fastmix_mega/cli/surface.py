"""`fastmix surface RUN`: predicted losses of any mixture, from a finished search."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastmix_mega.errors import UserError
from fastmix_mega.output_file import ResultFile, add_output, require_output_file

MARKS = (b"mixture,target,loss,deviation", b'"deviation": ')
"""Of a table in CSV and in JSON."""


def add_verb(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    surface = verbs.add_parser(
        "surface", help="predicted loss of mixtures on every target, from a finished search"
    )
    surface.add_argument("run_dir", type=Path, help="the run folder of a search")
    surface.add_argument(
        "--mixture",
        action="append",
        default=[],
        metavar="MIXTURE",
        help="a mixture.json, a run folder, uniform or proportional; repeatable (default: what the "
        "search itself predicted)",
    )
    surface.add_argument(
        "--evidence",
        action="append",
        default=[],
        metavar="RUN",
        help="more finished runs to learn from: run folders of fastmix train, a swarm's or a "
        "retraining's folder, or a file of fastmix import --from olmix; repeatable. The best "
        "mixture with them is told too",
    )
    surface.add_argument(
        "--best",
        type=Path,
        metavar="FILE",
        help="write the best mixture, for training: with --evidence it is another one than the "
        "search's",
    )
    surface.add_argument(
        "--next",
        type=Path,
        metavar="FILE",
        help="write the mixture on which one more `fastmix train` would tell most",
    )
    add_output(surface, "a .csv or .json file to write (default: a table)")
    surface.set_defaults(verb=_surface)


def _surface(options: argparse.Namespace) -> int:
    from fastmix_mega.files import write_json
    from fastmix_mega.methods.predictions import Foresight
    from fastmix_mega.mixture.file import weights_file

    if options.output is not None:
        if options.output.suffix not in (".csv", ".json"):
            raise UserError(f"--output {options.output}: name a .csv or a .json file")
        asked = ResultFile(options.output, options.overwrite)
        require_output_file(asked, [options.run_dir, *options.mixture], MARKS)
    for path in (options.best, options.next):
        if path is not None:
            asked = ResultFile(path, options.overwrite)
            require_output_file(asked, [options.run_dir, *options.mixture, *options.evidence])
    found = Foresight(options.run_dir, evidence=options.evidence)
    rows = found.rows(options.mixture)
    if found.runs is not None:
        print("\n".join([*found.runs.facts, *found.runs.warnings]), file=sys.stderr)
    if options.best is not None:
        found.mixture_file(options.evidence).write(options.best)
        print(f"the best mixture: {options.best}", file=sys.stderr)
    if options.next is not None:
        write_json(options.next, weights_file(found.next_run()))
        print(f"a run on this mixture would tell most: {options.next}", file=sys.stderr)
    if options.output is None:
        print(table(rows))
        return 0
    from fastmix_mega.files import write_atomic

    if options.output.suffix == ".json":
        write_atomic(options.output, json.dumps(rows, indent=1) + "\n")
    else:
        text = io.StringIO()
        flat = [
            row | {f"weight:{name}": share for name, share in row.pop("weights").items()}
            for row in rows
        ]
        writer = csv.DictWriter(text, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
        write_atomic(options.output, text.getvalue())
    print(options.output, file=sys.stderr)
    return 0


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Predictions for people, with the best mixture where more evidence has changed it."""
    from fastmix_mega.methods.predictions import BEST

    wide = max(7, *(len(row["mixture"]) for row in rows))
    target = max(6, *(len(row["target"]) for row in rows))
    lines = [f"{'mixture':<{wide}}  {'target':<{target}}  {'loss':>7}  90% interval"]
    lines += [
        f"{row['mixture']:<{wide}}  {row['target']:<{target}}  {row['loss']:7.3f}  "
        f"{row['low']:.3f} to {row['high']:.3f}"
        for row in rows
    ]
    best = next((row["weights"] for row in rows if row["mixture"] == BEST), None)
    if best is not None:
        told = sorted(best.items(), key=lambda each: -each[1])
        lines.append(f"{BEST}: " + ", ".join(f"{name} {share:.1%}" for name, share in told))
    return "\n".join(lines)
