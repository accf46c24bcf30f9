"""Turn text into one of Megatron's indexed token files, with a manifest beside it.

    python -m data_tools.preprocess 'corpus/*.jsonl.zst' --tokenizer tokenizer.model \
        --output-prefix out/web --workers 8

reads JSONL, plain text (.gz, .zst, .bz2, .xz too), Parquet and folders of Hugging Face datasets,
and writes out/web.bin, out/web.idx (megatron-core reads them) and out/web.json: documents, tokens,
tokenizer and checksums. The end-of-document token follows every document.

Bad lines (broken JSON, wrong type, not UTF-8, empty, too long) go to out/web.bad.jsonl with file,
line and reason, and more than --max-bad of them end the run; none is dropped in silence.

The work is cut into units. What is finished lies in out/web.parts/; a run that was killed goes on
from there when the same command is given again, and the result is the same byte for byte, whatever
the number of workers. --task 3/16 does the third of sixteen shares, for an array job; `merge` joins
the shares, and the result is again the same.

--mode sft reads conversations (prompt/completion, OpenAI messages, ShareGPT, Alpaca,
question/answer), writes them by a chat template, and puts a loss mask beside the tokens,
out/web.mask.bin and .idx: only the assistant's tokens and the end of its turn count.

--backend gigatoken is several times faster where the optional package knows the tokenizer. The
first document of every file and a thousandth of the text are encoded by the tokenizer's own library
too; a difference ends the run.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from data_tools.chat_encoding import ChatOptions
from data_tools.columns import ColumnMap, parse_mapping
from data_tools.commands import run_command, tool_parser
from data_tools.encoding import EncodeJob, make_encoder
from data_tools.fast_encoding import BACKENDS
from data_tools.inputs import InputFile, Unit, cut_into_units, describe_inputs, list_inputs
from data_tools.joining import join
from data_tools.notes import add_notes, print_notes
from data_tools.parts import Marker, PartsFolder
from data_tools.progress import Progress
from data_tools.readers import ReadOptions, lines_before
from data_tools.records import FIELDS, SHAPES, TRAIN_ON, shape_of
from data_tools.special_text import TREATMENTS
from data_tools.templates import load_template
from data_tools.workers import run_units
from fastmix_mega import __version__
from fastmix_mega.data.indexed import read_manifest, token_dtype
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_atomic


@dataclass(frozen=True)
class Options:
    """How a prefix is made; all but the workers and `fresh` decide what is in it."""

    read: ReadOptions = field(default_factory=ReadOptions)
    eod: str | None = None
    """The token that ends a document, where the tokenizer's own is not meant."""
    bos: bool = False
    """Whether the tokenizer's first token starts every document."""
    max_bad: int = 0
    """Bad lines to tolerate."""
    task: tuple[int, int] = (1, 1)
    """This share, from 1, of how many."""
    backend: str = "library"
    """What encodes: the tokenizer's own `library`, or `gigatoken`."""
    mode: str = "text"
    """`text`, or `sft` for conversations."""
    template: str = "plain"
    """Of conversations: `plain`, `raw`, `hf`, or a file."""
    record: str = "auto"
    """The shape of conversations, where a file's first row shall not decide."""
    mapping: ColumnMap = ()
    """Which columns of conversations are taken for which fields."""
    train_on: str = "all"
    """Which turns of conversations count: `all`, or the `last`."""
    special_text: str = "keep"
    """What becomes of special tokens that text spells: `keep`, `forbid` or `encode`."""
    workers: int = 1
    fresh: bool = False
    """Throw away what an earlier run left."""
    quiet: bool = True
    """Show no progress."""


def preprocess(
    inputs: Sequence[str | Path],
    tokenizer_path: Path,
    output_prefix: Path,
    options: Options | None = None,
    list_file: Path | None = None,
) -> tuple[int, int]:
    """Tokenize inputs in order into one prefix.

    Args:
        inputs: files, globs, folders of Hugging Face datasets.
        tokenizer_path: a sentencepiece model or a tokenizer.json.
        output_prefix: without .bin/.idx.
        options: all the rest; by default those of `Options`.
        list_file: names further inputs, one a line.

    Returns:
        Documents and tokens written.

    Raises:
        UserError: for a missing file, a broken tokenizer, or too many bad lines.
        ToolError: if a worker dies.
    """
    options = options or Options()
    tokenizer = Tokenizer(tokenizer_path, options.eod)
    if options.bos and tokenizer.bos is None:
        raise UserError(f"--bos: {tokenizer_path} names no token that starts a document")
    dtype = token_dtype(tokenizer.vocab_size)
    files = list_inputs(inputs, list_file)
    chat = _chat_options(files, options)
    template = (
        None if chat is None else load_template(chat.template, tokenizer, chat.special_text).name
    )
    masked = chat is not None
    units = cut_into_units(files, options.read.text_unit)
    wanted = _share(len(units), options.task)
    output_prefix.parent.mkdir(parents=True, exist_ok=True)
    parts = PartsFolder(
        output_prefix, _plan(files, tokenizer, options, chat, template), options.fresh
    )
    job = EncodeJob(
        files,
        units,
        parts.path,
        tokenizer_path,
        options.read,
        options.eod,
        options.bos,
        options.max_bad,
        tokenizer.vocab_size,
        options.backend,
        chat,
        options.special_text,
    )
    markers = parts.finished(len(units), dtype, masked)
    _run(job, wanted, markers, options)
    _report_bad_lines(job, [markers[number] for number in wanted], output_prefix)
    ordered = [markers[number] for number in wanted]
    notes = add_notes(marker.notes for marker in ordered)
    if not options.quiet:
        print_notes(notes)
    manifest = {
        "tokenizer_sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "eod": tokenizer.eod,
        "made_by": {
            "program": f"fastmix-mega {__version__}",
            "inputs": [Path(file.path).name for file in files],
            **(
                {"text_key": options.read.text_key}
                if chat is None
                else {"records": list(chat.shapes)}
            ),
            "backend": options.backend,
            "text_bytes": sum(marker.text_bytes for marker in ordered),
            "bad_lines": sum(len(marker.problems) for marker in ordered),
            **({"notes": notes} if notes else {}),
        },
    }
    pieces = parts.pieces(ordered, dtype, masked)
    made = join(output_prefix, dtype, pieces, manifest, masked=masked, template=template)
    parts.remove()
    return made.documents, made.tokens


def _share(count: int, task: tuple[int, int]) -> range:
    """The units of one task: neighbours, so that the tasks' results in order are the whole."""
    number, tasks = task
    return range(count * (number - 1) // tasks, count * number // tasks)


def _chat_options(files: Sequence[InputFile], options: Options) -> ChatOptions | None:
    if options.mode == "text":
        return None
    if options.backend != "library":
        raise UserError(f"--backend {options.backend} is for text; leave it out with --mode sft")
    if options.record == "auto":
        shapes = [shape_of(file, options.read, options.mapping) for file in files]
    else:
        text = next((file.path for file in files if file.kind == "text"), None)
        if text is not None:
            raise UserError(f"{text} is plain text; conversations come as JSONL or Parquet")
        shapes = [options.record for _ in files]
    return ChatOptions(
        options.template, tuple(shapes), options.mapping, options.train_on, options.special_text
    )


def _plan(
    files: Sequence[InputFile],
    tokenizer: Tokenizer,
    options: Options,
    chat: ChatOptions | None,
    template: str | None,
) -> dict[str, Any]:
    conversations: dict[str, Any] = {}
    if chat is not None:
        conversations = {
            "template": template,
            "records": list(chat.shapes),
            "mapping": [list(pair) for pair in chat.mapping],
            "train_on": chat.train_on,
        }
    return {
        "format": 1,
        "inputs": describe_inputs(files),
        "tokenizer": tokenizer.sha256,
        "reading": asdict(options.read),
        "eod": tokenizer.eod,
        "bos": options.bos,
        "backend": options.backend,
        "special_text": options.special_text,
        "task": list(options.task),
        **conversations,
    }


def _run(job: EncodeJob, wanted: range, markers: dict[int, Marker], options: Options) -> None:
    """Make the parts that are missing, into `markers`."""
    progress = Progress(sum(job.units[number].weight for number in wanted), options.quiet)
    bad = 0
    for number in wanted:
        if number in markers:
            progress.skip(job.units[number].weight)
            bad += len(markers[number].problems)
    _require_few(job, markers, wanted, bad)
    missing = [number for number in wanted if number not in markers]
    try:
        for marker in run_units(make_encoder, job, missing, options.workers, progress.add):
            markers[marker.unit] = marker
            bad += len(marker.problems)
            progress.add(tokens=marker.tokens, bad=len(marker.problems))
            _require_few(job, markers, wanted, bad)
    finally:
        progress.close()


def _require_few(job: EncodeJob, markers: dict[int, Marker], wanted: range, bad: int) -> None:
    if bad <= job.max_bad:
        return
    found = [line for number in wanted if number in markers for line in _bad(job, markers[number])]
    worst = found[min(job.max_bad, len(found) - 1)]
    raise UserError(
        f"{worst['file']}:{worst['line']}: {worst['reason']} ({bad} bad line(s) so far, --max-bad "
        f"is {job.max_bad}); mend it, or raise --max-bad"
    )


def _bad(job: EncodeJob, marker: Marker) -> list[dict[str, Any]]:
    """The problems of a unit, by the lines of its file where the unit starts the file."""
    unit: Unit = job.units[marker.unit]
    file = job.files[unit.file]
    first = lines_before(file, unit)
    return [
        {"file": file.path, "line": first + line, "reason": reason}
        for line, reason in marker.problems
    ]


def _report_bad_lines(job: EncodeJob, markers: Sequence[Marker], prefix: Path) -> None:
    bad = [line for marker in markers if marker.problems for line in _bad(job, marker)]
    path = Path(f"{prefix}.bad.jsonl")
    if bad:
        write_atomic(path, b"".join(orjson.dumps(line) + b"\n" for line in bad))
    else:
        path.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("preprocess", __doc__ or "")
    parser.add_argument("inputs", nargs="*", help="files, globs or dataset folders, in order")
    parser.add_argument("--files-from", type=Path, metavar="LIST", help="one input a line")
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="a sentencepiece .model or a tokenizer.json"
    )
    parser.add_argument("--output-prefix", type=Path, required=True, help="without .bin/.idx")
    parser.add_argument("--text-key", default="text", help="field of the text; a.b for nested ones")
    parser.add_argument(
        "--text-unit", choices=("line", "file"), default="line", help="a document of plain text"
    )
    parser.add_argument("--max-bytes", type=int, default=ReadOptions.largest, help="per document")
    parser.add_argument("--eod", metavar="TOKEN", help="ends documents, if not the tokenizer's own")
    parser.add_argument("--bos", action="store_true", help="start documents with the first token")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="library", help="gigatoken is an optional package"
    )
    parser.add_argument(
        "--mode", choices=("text", "sft"), default="text", help="sft: conversations, with a mask"
    )
    parser.add_argument(
        "--template",
        default="plain",
        help="of conversations: plain, raw, hf (the tokenizer's own), or a file",
    )
    parser.add_argument(
        "--record",
        choices=("auto", *SHAPES),
        default="auto",
        help="shape of conversations; by default each file's first row decides",
    )
    parser.add_argument(
        "--map",
        type=functools.partial(parse_mapping, FIELDS),
        default=(),
        metavar="FIELD=COLUMN,...",
        help="columns of conversations with other names; FIELD= leaves a column out",
    )
    parser.add_argument(
        "--train-on",
        choices=TRAIN_ON,
        default="all",
        help="of conversations: all answers, or those after the user's last message",
    )
    parser.add_argument(
        "--special-tokens-in-text",
        choices=TREATMENTS,
        default="keep",
        help="such as <|endoftext|> in text: text (the default), a bad line, or the token",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that tokenize")
    parser.add_argument("--max-bad", type=int, default=0, help="bad lines to tolerate")
    parser.add_argument(
        "--task", type=_task, default=(1, 1), metavar="K/N", help="do share K of N (array jobs)"
    )
    parser.add_argument("--fresh", action="store_true", help="forget an unfinished run")

    def work(options: argparse.Namespace) -> None:
        if options.workers < 1 or options.max_bytes < 1:
            raise UserError("--workers and --max-bytes must be at least 1")
        if options.mode == "text" and (options.template, options.record) != ("plain", "auto"):
            raise UserError("--template and --record belong to --mode sft")
        if options.mode == "text" and (options.map or options.train_on != "all"):
            raise UserError("--map and --train-on belong to --mode sft")
        read = ReadOptions(options.text_key, options.text_unit, options.max_bytes)
        documents, tokens = preprocess(
            options.inputs,
            options.tokenizer,
            options.output_prefix,
            Options(
                read,
                options.eod,
                options.bos,
                options.max_bad,
                options.task,
                options.backend,
                options.mode,
                options.template,
                options.record,
                options.map,
                options.train_on,
                options.special_tokens_in_text,
                options.workers,
                options.fresh,
                quiet=False,
            ),
            options.files_from,
        )
        manifest = read_manifest(str(options.output_prefix))
        mask = None if manifest is None else manifest.mask
        answers = "" if mask is None else f", {mask.answers:,} of them answers"
        print(f"{options.output_prefix}: {documents:,} documents, {tokens:,} tokens{answers}")

    return run_command(parser, work, arguments)


def _task(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError("must look like 3/16, with 1 <= K <= N")
    return int(number), int(count)


if __name__ == "__main__":
    raise SystemExit(main())
