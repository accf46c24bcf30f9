"""Train a sentencepiece tokenizer on JSONL files, the same amount of text from each.

    python -m data_tools.train_tokenizer data/demo/text/sources/*.jsonl \\
        --vocab-size 2048 --output data/demo/tokenizer.model

BPE with byte fallback (no text is unknown) and single digits; </s> ends every document. The same
files give the same model, byte for byte.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import sentencepiece

from data_tools.commands import run_command, tool_parser
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_atomic

PIECE = 1000
"""sentencepiece learns from sentences; documents are cut into pieces of this many characters."""


def train_tokenizer(files: Sequence[Path], vocab_size: int, per_file: int, output: Path) -> None:
    """Train on at most `per_file` characters of each file and write the model atomically.

    Raises:
        UserError: if a file is missing or broken, or the text is too small for the vocabulary.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_pieces(files, per_file),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            split_digits=True,
            # Code is text whose spaces and line ends mean something.
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            add_dummy_prefix=False,
            character_coverage=0.9995,
            # Several threads would make the merges' order, and so the model, differ by run.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the tokenizer cannot be trained: {reason}") from None
    write_atomic(output, model.getvalue())


def _pieces(files: Sequence[Path], per_file: int) -> Iterator[str]:
    for path in files:
        left = per_file
        for text in read_texts(path):
            if left <= 0:
                break
            for start in range(0, min(len(text), left), PIECE):
                yield text[start : start + PIECE]
            left -= len(text)


def read_texts(path: Path) -> Iterator[str]:
    """The `text` of every line; UserError names file and line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    text = orjson.loads(line)["text"]
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    text = None
                if not isinstance(text, str):
                    raise UserError(f'{path}:{number}: not a JSON object with a "text"')
                yield text
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("train_tokenizer", __doc__ or "")
    parser.add_argument("files", type=Path, nargs="+", help="JSONL files with a text field")
    parser.add_argument("--vocab-size", type=int, default=32000)
    parser.add_argument(
        "--per-file", type=int, default=10_000_000, help="characters to learn from each file"
    )
    parser.add_argument("--output", type=Path, required=True, help="the .model file")

    def work(options: argparse.Namespace) -> None:
        train_tokenizer(options.files, options.vocab_size, options.per_file, options.output)

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
