"""`fastmix verify RUN`: are a run folder's files whole, and nothing but data?"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastmix_mega.errors import UserError

SHOWN = 5
"""Names of files that are listed."""


def add_verb(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    verify = verbs.add_parser(
        "verify", help="whether a run folder's files are whole, and hold data alone"
    )
    verify.add_argument("run_dir", type=Path, help="the run folder")
    verify.add_argument(
        "--sha256",
        metavar="HEX",
        help="of the newest checkpoint's manifest, as its owner tells it: refuse another one",
    )
    verify.set_defaults(verb=_verify)


def _verify(options: argparse.Namespace) -> int:
    from fastmix_mega.cli.imports import import_libraries

    import_libraries()  # Without their warnings.
    from fastmix_mega.checkpoint.examine import examine
    from fastmix_mega.report.read import read_run

    run = options.run_dir
    wrong: list[str] = []
    try:
        found = read_run(run)
        print(f"{run}: {len(found.steps)} logged steps, {len(found.history)} outer steps")
    except UserError as error:
        wrong.append(str(error))
    wrong += _links(run)
    newest = ""
    for each in examine(run):
        wrong += each.wrong
        newest = each.sha256
        if each.wrong:
            continue
        print(f"step_{each.step}: {each.files} files, {each.bytes:,} bytes, whole; data alone")
        print(f"  manifest SHA-256 {each.sha256}")
        if each.unnamed:
            names = ", ".join(each.unnamed[:SHOWN])
            print(f"  not in its manifest: {len(each.unnamed)} files ({names})")
    if options.sha256 is not None and options.sha256.lower() != newest:
        wrong.append(f"the newest checkpoint is not {options.sha256}, but {newest or 'none'}")
    if wrong:
        raise UserError("\n".join(wrong))
    return 0


def _links(run: Path) -> Iterator[str]:
    """What leads out of the folder. wandb links its logs so, which nothing here reads."""
    inside = run.resolve()
    for folder, folders, files in os.walk(run):
        if Path(folder) == run:
            folders[:] = [name for name in folders if name != "wandb"]
        for name in (*folders, *files):
            path = Path(folder) / name
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside):
                yield f"{path} leads out of the run folder, to {os.path.realpath(path)}"
