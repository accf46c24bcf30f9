"""The verbs that work on mixtures: export, import, compare. Each is thin: words in, lines out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_verbs(verbs: Any) -> None:
    """Add the verbs to the command's parser."""
    export = verbs.add_parser("export", help="write a mixture in a trainer's format")
    export.add_argument("mixture", help="a mixture.json or a run folder")
    export.add_argument("--to", required=True, metavar="FORMAT", help="megatron, gpt-neox, ...")
    export.add_argument("--output", "-o", type=Path, required=True, help="the file to write")
    export.add_argument("--constraints", type=Path, metavar="FILE", help="limits, as YAML")
    export.add_argument(
        "--budget-tokens", type=quantity, metavar="N", help="tokens of the large run: 300B, 2T"
    )
    export.add_argument(
        "--paths", metavar="TEMPLATE", help="where the reader's files are: 's3://bucket/{name}'"
    )
    export.add_argument(
        "--valid", action="append", default=[], metavar="PREFIX", help="held-out text; repeatable"
    )
    export.set_defaults(verb=_export)

    take = verbs.add_parser("import", help="take a trainer's or a published mixture")
    take.add_argument("file", type=Path)
    take.add_argument("--from", dest="format", required=True, metavar="FORMAT")
    take.add_argument("--output", "-o", type=Path, required=True, help="the mixture.json to write")
    take.set_defaults(verb=_import)


def quantity(text: str) -> int:
    """300B, 1.5T, 20000."""
    units = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
    number, factor = text.replace(",", "").replace("_", ""), 1
    if number[-1:].lower() in units:
        number, factor = number[:-1], units[number[-1].lower()]
    try:
        value = round(float(number) * factor)
    except (ValueError, OverflowError):
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens, such as 300B")
    return value


def _export(options: argparse.Namespace) -> int:
    from fastmix_mega.constraints.spec import read_constraints
    from fastmix_mega.handover.export import export_mixture

    constraints = None
    if options.constraints is not None:
        constraints = read_constraints(options.constraints, options.budget_tokens)
    done = export_mixture(
        options.mixture,
        options.to,
        options.output,
        constraints,
        options.budget_tokens,
        options.paths,
        options.valid,
    )
    print("\n".join([*done.lines, str(done.path)]))
    return 0


def _import(options: argparse.Namespace) -> int:
    from fastmix_mega.handover.export import import_mixture

    print("\n".join([*import_mixture(options.file, options.format, options.output)]))
    print(options.output)
    return 0
