"""Find and remove documents of sources that a target also holds, whole, in part or nearly.

    python -m data_tools.dedup --targets reasoning.jsonl --sources 'web/*.jsonl.zst' \
        --output clean/web.jsonl

A target inside a source makes the source look good for the wrong reason. Every run of five words of
the targets is indexed (exactly, in memory), and the sources are read through once, whatever their
size. A source's document is removed if it shares at least --share of the five-word runs of the
smaller one of the two: an exact copy, a near-copy, or an excerpt. What was removed, and for which
target document, is listed in <output>.removed.jsonl.

What stays keeps all its fields: lines of JSON are written as they were read, other rows as JSON. An
output called .gz, .zst, .bz2 or .xz is compressed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from data_tools.commands import run_command, tool_parser
from data_tools.compression import open_compressed
from data_tools.copies import CopyIndex
from data_tools.fields import Blank, Problem
from data_tools.inputs import (
    COMPRESSIONS,
    KINDS,
    InputFile,
    cut_into_units,
    list_inputs,
    mark_inputs,
)
from data_tools.outputs import Output, claim, recipe_of
from data_tools.pipes import spool_pipes
from data_tools.readers import ReadOptions, Record, read_records
from fastmix_mega.errors import UserError
from fastmix_mega.files import open_atomic


@dataclass(frozen=True)
class DedupOptions:
    """What makes a copy, and what is borne."""

    share: float = 0.5
    """Of the smaller document's five-word runs."""
    read: ReadOptions = field(default_factory=ReadOptions)
    max_bad: int = 0
    """Lines that are no documents, and are left out."""
    allow_empty: bool = False
    """Whether sources and targets may be without documents."""
    overwrite: bool = False
    """Replace an output that is there."""


@dataclass
class Outcome:
    """How many documents there were."""

    kept: int = 0
    removed: int = 0
    bad: int = 0
    blank: int = 0
    targets: int = 0


def dedup(
    sources: Sequence[str], targets: Sequence[str], output: Path, options: DedupOptions
) -> Outcome:
    """Write the sources' documents that no target repeats.

    Raises:
        UserError: for a missing or broken input, more bad lines than are borne, or an output that
            is an input or there already.
    """
    if not 0 < options.share <= 1:
        raise UserError("--share must be above 0 and at most 1")
    compression = _compression(output)
    with spool_pipes(output.parent) as pipes:
        target_files = list_inputs(targets, pipes=pipes, copies=True)
        source_files = list_inputs(sources, pipes=pipes)
        inputs = mark_inputs([*target_files, *source_files])
        recipe = recipe_of(tool="dedup", inputs=inputs, options=asdict(options))
        listing = Path(f"{output}.removed.jsonl")
        claimed = Output(output, (output, listing), recipe=recipe)
        read = [file.path for file in (*target_files, *source_files)]
        with claim([claimed], read, options.overwrite), ExitStack() as stack:
            clean = _open_output(stack, output, compression)
            removed = stack.enter_context(open_atomic(listing))
            return _compare((target_files, source_files), clean, removed, options)


def _compression(output: Path) -> str | None:
    compression = COMPRESSIONS.get(output.suffix.lower())
    inner = output.with_suffix("") if compression else output
    if KINDS.get(inner.suffix.lower()) != "jsonl":
        raise UserError(
            f"--output {output}: what stays is written as .jsonl, or .jsonl with "
            f"{', '.join(COMPRESSIONS)}"
        )
    return compression


def _open_output(stack: ExitStack, output: Path, compression: str | None) -> BinaryIO:
    file = stack.enter_context(open_atomic(output))
    return file if compression is None else stack.enter_context(open_compressed(file, compression))


def _compare(
    files: tuple[Sequence[InputFile], Sequence[InputFile]],
    clean: BinaryIO,
    listing: BinaryIO,
    options: DedupOptions,
) -> Outcome:
    index, outcome = CopyIndex(options.share), Outcome()
    targets, sources = files
    for name, record in _documents(targets, options, outcome):
        index.add(name, record.text)
        outcome.targets += 1
    for name, record in _documents(sources, options, outcome):
        match = index.match(record.text)
        if match is None:
            clean.write(record.json + b"\n")
            outcome.kept += 1
        else:
            row = {"source": name, "target": match.name, "share": round(match.share, 4)}
            listing.write(orjson.dumps(row) + b"\n")
            outcome.removed += 1
    for what, count in (
        ("targets", outcome.targets),
        ("sources", outcome.kept + outcome.removed),
    ):
        if not count and not options.allow_empty:
            raise UserError(f"the {what} hold no document (--allow-empty if that is meant)")
    return outcome


def _documents(
    files: Sequence[InputFile], options: DedupOptions, outcome: Outcome
) -> Iterator[tuple[str, Record]]:
    """(file:number, document) of every document."""
    numbers: Counter[int] = Counter()
    for unit in cut_into_units(files, options.read.text_unit):
        for record in read_records(files[unit.file], unit, options.read):
            numbers[unit.file] += 1
            name = f"{files[unit.file].shown}:{numbers[unit.file]}"
            if isinstance(record, Blank):
                outcome.blank += 1
            elif isinstance(record, Problem):
                outcome.bad += 1
                if outcome.bad > options.max_bad:
                    raise UserError(
                        f"{name}: {record.reason} ({outcome.bad} bad line(s) so far, --max-bad is "
                        f"{options.max_bad}); mend it, or raise --max-bad"
                    )
            else:
                yield name, record


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("dedup", __doc__ or "")
    inputs: dict[str, Any] = {"nargs": "+", "required": True, "metavar": "INPUT"}
    parser.add_argument("--sources", **inputs, help="as for preprocess")
    parser.add_argument("--targets", **inputs, help="as for preprocess; evaluation sets too")
    parser.add_argument("--output", type=Path, required=True, help="JSONL of what stays")
    parser.add_argument("--share", type=float, default=0.5, help="that makes a copy")
    parser.add_argument(
        "--text-key",
        action="append",
        metavar="FIELD",
        help="field of the text (default: text); a.b for nested ones; may be given several times",
    )
    parser.add_argument("--max-bad", type=int, default=0, help="bad lines to leave out")
    parser.add_argument("--allow-empty", action="store_true", help="inputs without documents")
    parser.add_argument("--overwrite", action="store_true", help="replace the output")

    def work(given: argparse.Namespace) -> None:
        options = DedupOptions(
            given.share,
            ReadOptions(tuple(given.text_key or ("text",))),
            given.max_bad,
            given.allow_empty,
            given.overwrite,
        )
        outcome = dedup(given.sources, given.targets, given.output, options)
        print(f"{given.output}: {outcome.kept:,} documents kept, {outcome.removed:,} removed")
        for count, what in ((outcome.bad, "bad lines left out"), (outcome.blank, "blank lines")):
            if count:
                print(f"{given.output}: {count:,} {what}", file=sys.stderr)

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
