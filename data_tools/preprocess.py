"""Turn text into one of Megatron's indexed token files, with a manifest beside it.

    python -m data_tools.preprocess 'corpus/*.jsonl.zst' --tokenizer tokenizer.model \
        --output-prefix out/web --workers 8

reads JSONL, JSON arrays, plain text and CSV (.gz, .zst, .bz2, .xz too), Parquet, Arrow, folders of
Hugging Face datasets, and standard input, called -. It writes out/web.bin and out/web.idx, which
megatron-core reads, and out/web.manifest.json: documents, tokens, tokenizer and checksums. The
end-of-document token follows every document.

Bad lines (broken JSON, wrong type, not UTF-8, empty, too long) go to out/web.bad.jsonl with file,
line and reason. More than --max-bad of them end the run, and so does a file that is mostly bad.
None is dropped in silence.

No file that was there before is changed: an output that is an input, or that is there already and
was not made by the same command, is an error. --overwrite replaces finished files, never an input.

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
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_tools.bad_lines import BadLimits
from data_tools.columns import parse_mapping
from data_tools.commands import run_command, tool_parser
from data_tools.encoding import TokenOptions
from data_tools.fast_encoding import BACKENDS
from data_tools.long_texts import default_largest
from data_tools.preprocess_run import ChatRequest, Options, RunOptions, preprocess
from data_tools.readers import ReadOptions
from data_tools.records import FIELDS, SHAPES, TRAIN_ON
from data_tools.selection import Selection
from data_tools.special_text import TREATMENTS
from fastmix_mega.data.indexed_manifest import Manifest, read_manifest
from fastmix_mega.errors import UserError


def _add_input_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="*", help="files, globs, dataset folders, or -, in order")
    parser.add_argument("--files-from", type=Path, metavar="LIST", help="one input a line")
    parser.add_argument(
        "--stdin-format",
        choices=("jsonl", "text", "csv", "tsv", "parquet"),
        default="jsonl",
        help="what standard input holds, compressed or not",
    )
    parser.add_argument(
        "--text-key",
        action="append",
        metavar="FIELD",
        help="field of the text (default: text); a.b for nested ones. Given several times, the "
        "texts of a row are joined in that order",
    )
    parser.add_argument(
        "--text-separator",
        default="\\n\\n",
        help="between several texts of a row; \\n is a line end",
    )
    parser.add_argument(
        "--text-unit", choices=("line", "file"), default="line", help="a document of plain text"
    )
    parser.add_argument(
        "--max-bytes",
        type=int,
        help="per document (default: 256 MiB; 8 MiB with a tokenizer.json, whose library takes "
        "up to 225 times as much memory)",
    )
    parser.add_argument("--allow-copies", action="store_true", help="read files of the same bytes")


def _add_token_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="a sentencepiece .model or a tokenizer.json"
    )
    parser.add_argument("--eod", metavar="TOKEN", help="ends documents, if not the tokenizer's own")
    parser.add_argument("--bos", action="store_true", help="start documents with the first token")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="library", help="gigatoken is an optional package"
    )
    parser.add_argument(
        "--special-tokens-in-text",
        choices=TREATMENTS,
        default="keep",
        help="such as <|endoftext|> in text: text (the default), a bad line, or the token",
    )


def _add_chat_arguments(parser: argparse.ArgumentParser) -> None:
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


def _add_selection_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sample", type=float, default=1.0, help="share of the documents to take")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="take random documents of at most N tokens"
    )
    parser.add_argument("--seed", type=int, default=0, help="another one takes other documents")
    parser.add_argument(
        "--task", type=_task, default=(1, 1), metavar="K/N", help="do share K of N (array jobs)"
    )
    parser.add_argument("--max-bad", type=int, default=0, help="bad lines to tolerate")
    parser.add_argument(
        "--max-bad-share", type=float, default=0.5, help="of a file that may be bad lines"
    )
    parser.add_argument("--allow-empty", action="store_true", help="a prefix without documents")


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output-prefix", type=Path, required=True, help="without .bin/.idx")
    parser.add_argument(
        "--origins", action="store_true", help="also write PREFIX.origins.parquet: file and row"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that tokenize")
    parser.add_argument("--fresh", action="store_true", help="forget an unfinished run")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace finished files of another run"
    )


def _options(given: argparse.Namespace) -> Options:
    """The command line's options."""
    if given.workers < 1 or (given.max_bytes is not None and given.max_bytes < 1):
        raise UserError("--workers and --max-bytes must be at least 1")
    if not 0 < given.sample <= 1 or (given.max_tokens is not None and given.max_tokens < 1):
        raise UserError("--sample is above 0 and at most 1, --max-tokens at least 1")
    if not 0 <= given.seed < 1 << 64:
        raise UserError("--seed must be from 0 to 2^64 - 1")
    if not 0 <= given.max_bad_share <= 1:
        raise UserError("--max-bad-share must be from 0 to 1")
    if given.mode == "text" and (given.template, given.record) != ("plain", "auto"):
        raise UserError("--template and --record belong to --mode sft")
    if given.mode == "text" and (given.map or given.train_on != "all"):
        raise UserError("--map and --train-on belong to --mode sft")
    keys = tuple(given.text_key or ("text",))
    largest = default_largest(given.tokenizer) if given.max_bytes is None else given.max_bytes
    separator = given.text_separator.replace("\\n", "\n").replace("\\t", "\t")
    return Options(
        ReadOptions(keys, given.text_unit, largest, separator),
        TokenOptions(given.eod, given.bos, given.backend, given.special_tokens_in_text),
        ChatRequest(given.template, given.record, given.map, given.train_on)
        if given.mode == "sft"
        else None,
        Selection(given.sample, given.max_tokens, given.seed),
        given.task,
        BadLimits(given.max_bad, given.max_bad_share, given.allow_empty),
        RunOptions(
            given.workers,
            fresh=given.fresh,
            overwrite=given.overwrite,
            allow_copies=given.allow_copies,
            origins=given.origins,
            pipe_kind=given.stdin_format,
            quiet=False,
        ),
    )


def _notes(manifest: Manifest, prefix: Path) -> Iterator[str]:
    """What a user must know of a run besides its size."""
    bad = manifest.made_by.get("bad_lines_by_file", {})
    if bad:
        files = ", ".join(f"{name} {count:,}" for name, count in list(bad.items())[:10])
        more = f", {len(bad) - 10} more files" if len(bad) > 10 else ""
        yield f"{sum(bad.values()):,} bad lines, listed in {prefix}.bad.jsonl: {files}{more}"
    if manifest.made_by.get("blank_lines"):
        yield f"{manifest.made_by['blank_lines']:,} blank lines were passed over"
    empty = manifest.made_by.get("empty_files", [])
    if empty:
        yield f"nothing is in {', '.join(empty[:10])}"
    for note, count in manifest.made_by.get("notes", {}).items():
        yield f"{note} ({count:,} times)"
    left_out = manifest.made_by.get("selection", {}).get("left_out")
    if left_out is not None:
        yield f"{left_out:,} documents were left out by --sample or --max-tokens"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("preprocess", __doc__ or "")
    _add_input_arguments(parser)
    _add_token_arguments(parser)
    _add_chat_arguments(parser)
    _add_selection_arguments(parser)
    _add_output_arguments(parser)

    def work(given: argparse.Namespace) -> None:
        prefix = given.output_prefix
        documents, tokens = preprocess(
            given.inputs, given.tokenizer, prefix, _options(given), given.files_from
        )
        manifest = read_manifest(str(prefix))
        mask = None if manifest is None else manifest.mask
        answers = "" if mask is None else f", {mask.answers:,} of them answers"
        print(f"{prefix}: {documents:,} documents, {tokens:,} tokens{answers}")
        for note in [] if manifest is None else _notes(manifest, prefix):
            print(f"{prefix}: {note}", file=sys.stderr)

    return run_command(parser, work, arguments)


def _task(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError("must look like 3/16, with 1 <= K <= N")
    return int(number), int(count)


if __name__ == "__main__":
    raise SystemExit(main())
