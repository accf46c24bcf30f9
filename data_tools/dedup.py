"""Find and remove documents of sources that a target also holds, whole, in part or nearly.

    python -m data_tools.dedup --targets reasoning.jsonl --sources 'web/*.jsonl.zst' \
        --output clean/web.jsonl

A target inside a source makes the source look good for the wrong reason. Every run of five words of
the targets is indexed (exactly, in memory), and the sources are read through once, whatever their
size. A source's document is removed if it shares at least --share of the five-word runs of the
smaller one of the two: an exact copy, a near-copy, or an excerpt. What was removed, and for which
target document, is listed in <output>.removed.jsonl.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from data_tools.commands import run_command, tool_parser
from data_tools.copies import CopyIndex
from data_tools.inputs import InputFile, cut_into_units, list_inputs
from data_tools.readers import Problem, ReadOptions, read_unit
from fastmix_mega.errors import UserError
from fastmix_mega.files import open_atomic


def dedup(
    sources: Sequence[str], targets: Sequence[str], output: Path, share: float, read: ReadOptions
) -> tuple[int, int]:
    """Write the sources' documents that no target repeats; returns how many were kept and removed.

    Raises:
        UserError: for a missing or broken input; every line must be a document.
    """
    if not 0 < share <= 1:
        raise UserError("--share must be above 0 and at most 1")
    index = CopyIndex(share)
    target_files, source_files = list_inputs(targets), list_inputs(sources)
    for name, text in _documents(target_files, read):
        index.add(name, text)
    kept = removed = 0
    with ExitStack() as stack:
        clean = stack.enter_context(open_atomic(output))
        listing = stack.enter_context(open_atomic(Path(f"{output}.removed.jsonl")))
        for name, text in _documents(source_files, read):
            match = index.match(text)
            if match is None:
                clean.write(orjson.dumps({"text": text}) + b"\n")
                kept += 1
            else:
                row = {"source": name, "target": match.name, "share": round(match.share, 4)}
                listing.write(orjson.dumps(row) + b"\n")
                removed += 1
    return kept, removed


def _documents(files: Sequence[InputFile], read: ReadOptions) -> Iterator[tuple[str, str]]:
    """(file:number, text) of every document."""
    numbers: Counter[int] = Counter()
    for unit in cut_into_units(files, read.text_unit):
        for text in read_unit(files[unit.file], unit, read):
            numbers[unit.file] += 1
            name = f"{files[unit.file].path}:{numbers[unit.file]}"
            if isinstance(text, Problem):
                raise UserError(f"{name}: {text.reason}; mend it, or leave the line out")
            yield name, text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("dedup", __doc__ or "")
    inputs: dict[str, Any] = {"nargs": "+", "required": True, "metavar": "INPUT"}
    parser.add_argument("--sources", **inputs, help="as for preprocess")
    parser.add_argument("--targets", **inputs, help="as for preprocess; evaluation sets too")
    parser.add_argument("--output", type=Path, required=True, help="JSONL of what stays")
    parser.add_argument("--share", type=float, default=0.5, help="that makes a copy")
    parser.add_argument("--text-key", default="text", help="field of the text; a.b for nested ones")

    def work(options: argparse.Namespace) -> None:
        read = ReadOptions((options.text_key,))
        kept, removed = dedup(options.sources, options.targets, options.output, options.share, read)
        print(f"{options.output}: {kept:,} documents kept, {removed:,} removed")

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
