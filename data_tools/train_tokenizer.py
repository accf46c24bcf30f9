"""Train a sentencepiece tokenizer on sources, the same amount of text from each or by weights.

    python -m data_tools.train_tokenizer 'web/*.jsonl.zst' code.parquet --weights 3 1 \\
        --vocab-size 32000 --output tokenizer.model

Every argument is a source: a file, a quoted pattern or a folder of Hugging Face datasets, in any
format that `preprocess` reads. Text is taken from all over a source, not from its start alone.

BPE, or unigram with --model-type. Characters that are too rare become bytes, so that no text is
unknown, and every digit is a token. </s> ends every document. --special-tokens reserves tokens that
text never becomes, even where it spells them. The same files and settings give the same model, byte
for byte.
"""

from __future__ import annotations

import argparse
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from data_tools.commands import run_command, tool_parser
from data_tools.inputs import InputFile, cut_into_units, list_inputs
from data_tools.readers import Problem, ReadOptions, lines_before, read_unit
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_atomic

PIECE = 1000
"""sentencepiece learns from sentences; documents are cut into pieces of this many characters."""
RESERVED = re.compile(r"<unk>|<s>|</s>|<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Training:
    """How a tokenizer is trained."""

    vocab_size: int = 32000
    per_source: int = 10_000_000
    """Characters to learn from each source, on average."""
    weights: tuple[float, ...] | None = None
    """Relative amounts of text, one per source; None for the same from each."""
    model_type: str = "bpe"
    """`bpe` or `unigram`."""
    byte_fallback: bool = True
    split_digits: bool = True
    special_tokens: tuple[str, ...] = ()
    """Further tokens that text never becomes."""
    text_key: str = "text"
    spread: bool = True
    """Take text from all over a source, rather than its start."""


@dataclass(frozen=True)
class Learnt:
    """What was taken of a source."""

    source: str
    wanted: int
    """Characters."""
    taken: int


def train_tokenizer(
    sources: Sequence[str | Path], output: Path, training: Training | None = None
) -> list[Learnt]:
    """Train on the sources and write the model atomically.

    Returns:
        How much of each source was learnt from; a source may have less than was wanted.

    Raises:
        UserError: if a source is missing or broken, a setting makes no sense, or the text is too
            small for the vocabulary.
    """
    training = training or Training()
    wanted = _amounts(len(sources), training)
    _require_sensible(training)
    files = [list_inputs([source]) for source in sources]
    list_inputs([file.path for source in files for file in source])
    taken = [0] * len(sources)

    def pieces() -> Iterator[str]:
        for number, source in enumerate(files):
            for piece in _sample(source, wanted[number], training):
                taken[number] += len(piece)
                yield piece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=pieces(),
            model_writer=model,
            model_type=training.model_type,
            vocab_size=training.vocab_size,
            byte_fallback=training.byte_fallback,
            split_digits=training.split_digits,
            control_symbols=list(training.special_tokens),
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
    return [Learnt(str(s), w, t) for s, w, t in zip(sources, wanted, taken, strict=True)]


def _amounts(sources: int, training: Training) -> list[int]:
    """Characters to take of each source."""
    weights = training.weights or (1.0,) * sources
    if len(weights) != sources:
        raise UserError(f"--weights has {len(weights)} numbers, but there are {sources} sources")
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise UserError("--weights must be above 0; leave a source out that shall not count")
    total = training.per_source * sources
    return [round(total * weight / sum(weights)) for weight in weights]


def _require_sensible(training: Training) -> None:
    if training.vocab_size < 1 or training.per_source < 1:
        raise UserError("--vocab-size and --per-source must be at least 1")
    seen: set[str] = set()
    for token in training.special_tokens:
        if not token.strip() or RESERVED.fullmatch(token):
            raise UserError(f"--special-tokens: {token!r} is empty or a token of every model")
        if token in seen:
            raise UserError(f"--special-tokens: {token!r} is given twice")
        seen.add(token)


def _sample(files: Sequence[InputFile], wanted: int, training: Training) -> Iterator[str]:
    """Pieces of `wanted` characters in all, rounded up, from the start of every unit of files."""
    units = cut_into_units(files, "line")
    options = ReadOptions((training.text_key,))
    for place, unit in enumerate(units):
        if wanted <= 0:
            return
        left = -(-wanted // (len(units) - place)) if training.spread else wanted
        for line, text in enumerate(read_unit(files[unit.file], unit, options), 1):
            if isinstance(text, Problem):
                number = lines_before(files[unit.file], unit) + line
                raise UserError(
                    f"{files[unit.file].path}:{number}: {text.reason}; mend it, or leave it out"
                )
            for start in range(0, min(len(text), left), PIECE):
                piece = text[start : start + PIECE]
                wanted -= len(piece)
                yield piece
            left -= len(text)
            if left <= 0:
                break


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("train_tokenizer", __doc__ or "")
    parser.add_argument("sources", nargs="+", help="a file, pattern or dataset folder each")
    parser.add_argument("--output", type=Path, required=True, help="the .model file")
    parser.add_argument("--vocab-size", type=int, default=Training.vocab_size)
    parser.add_argument(
        "--per-source",
        type=int,
        default=Training.per_source,
        help="characters to learn from each source, on average; all are held in memory",
    )
    parser.add_argument(
        "--weights", type=float, nargs="+", help="relative amounts of text, one per source"
    )
    parser.add_argument("--model-type", choices=("bpe", "unigram"), default="bpe")
    parser.add_argument(
        "--no-byte-fallback", action="store_true", help="rare characters become <unk>"
    )
    parser.add_argument("--no-split-digits", action="store_true", help="numbers may be one token")
    parser.add_argument(
        "--special-tokens", nargs="+", default=[], metavar="TOKEN", help="for example '<|user|>'"
    )
    parser.add_argument("--text-key", default="text", help="field of the text; a.b for nested ones")

    def work(options: argparse.Namespace) -> None:
        training = Training(
            options.vocab_size,
            options.per_source,
            None if options.weights is None else tuple(options.weights),
            options.model_type,
            not options.no_byte_fallback,
            not options.no_split_digits,
            tuple(options.special_tokens),
            options.text_key,
        )
        for learnt in train_tokenizer(options.sources, options.output, training):
            few = "" if learnt.taken >= learnt.wanted else f" of {learnt.wanted:,} wanted (all)"
            print(f"{learnt.source}: {learnt.taken:,} characters{few}")

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
