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
from dataclasses import asdict, dataclass
from pathlib import Path

import sentencepiece

from data_tools.commands import run_command, tool_parser
from data_tools.fields import Blank, Problem
from data_tools.inputs import (
    InputFile,
    Unit,
    cut_into_units,
    list_inputs,
    mark_inputs,
    require_once,
)
from data_tools.outputs import Output, claim, recipe_of
from data_tools.pipes import spool_pipes
from data_tools.readers import ReadOptions, lines_before, read_unit
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
    sources: Sequence[str | Path],
    output: Path,
    training: Training | None = None,
    overwrite: bool = False,
    max_bad: int = 0,
) -> list[Learnt]:
    """Train on the sources and write the model atomically.

    Args:
        sources: a file, pattern or dataset folder each.
        output: the .model file.
        training: how.
        overwrite: replace an output that is there.
        max_bad: lines that are no documents, and are left out.

    Returns:
        How much of each source was learnt from; a source may have less than was wanted.

    Raises:
        UserError: if a source is missing or broken, a setting makes no sense, the text is too
            small for the vocabulary, or the output is a source or there already.
    """
    training = training or Training()
    wanted = _amounts(len(sources), training)
    _require_sensible(training)
    with spool_pipes(output.parent) as pipes:
        files = [list_inputs([source], pipes=pipes) for source in sources]
        every = [file for source in files for file in source]
        require_once(every)
        recipe = recipe_of(
            tool="train_tokenizer", inputs=mark_inputs(every), training=asdict(training)
        )
        claimed = Output(output, (output,), recipe=recipe)
        with claim([claimed], [file.path for file in every], overwrite):
            sampler = _Sampler(training, max_bad)
            model = _train(sampler.pieces(files, wanted), training, sampler)
            write_atomic(output, model)
    taken = sampler.taken
    return [Learnt(str(s), w, t) for s, w, t in zip(sources, wanted, taken, strict=True)]


def _train(pieces: Iterator[str], training: Training, sampler: _Sampler) -> bytes:
    """The model's bytes."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=pieces,
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
        # The library turns what the text's source raises into an error of its own.
        if sampler.failure is not None:
            raise sampler.failure from None
        reason = " ".join(str(error).split())
        raise UserError(f"the tokenizer cannot be trained: {reason}") from None
    except (UserError, OSError):
        if sampler.failure is not None:
            raise sampler.failure from None
        raise
    return model.getvalue()


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


class _Sampler:
    """Takes text from sources.

    Attributes:
        taken: characters of each source.
        failure: what went wrong, which the training library hides.
    """

    def __init__(self, training: Training, max_bad: int) -> None:
        self._training, self._max_bad = training, max_bad
        self._options = ReadOptions((training.text_key,))
        self._bad = 0
        self.taken: list[int] = []
        self.failure: UserError | OSError | None = None

    def pieces(
        self, sources: Sequence[Sequence[InputFile]], wanted: Sequence[int]
    ) -> Iterator[str]:
        """Pieces of every source, as many characters as are wanted of it, rounded up."""
        try:
            for files, size in zip(sources, wanted, strict=True):
                self.taken.append(0)
                for piece in self._sample(files, size):
                    self.taken[-1] += len(piece)
                    yield piece
                if not self.taken[-1]:
                    names = ", ".join(file.shown for file in files[:3])
                    raise UserError(f"{names}: no document to learn from; leave the source out")
        except (UserError, OSError) as error:
            self.failure = error
            raise

    def _sample(self, files: Sequence[InputFile], wanted: int) -> Iterator[str]:
        """Pieces from the start of every unit of the files."""
        units = cut_into_units(files, "line")
        for place, unit in enumerate(units):
            if wanted <= 0:
                return
            left = -(-wanted // (len(units) - place)) if self._training.spread else wanted
            for line, text in enumerate(read_unit(files[unit.file], unit, self._options), 1):
                if isinstance(text, Problem):
                    self._count(text, files[unit.file], unit, line)
                    continue
                for start in range(0, min(len(text), left), PIECE):
                    piece = text[start : start + PIECE]
                    wanted -= len(piece)
                    yield piece
                left -= len(text)
                if left <= 0:
                    break

    def _count(self, problem: Problem, file: InputFile, unit: Unit, line: int) -> None:
        """Pass over a blank line, and over bad ones as long as they are few."""
        if isinstance(problem, Blank):
            return
        self._bad += 1
        if self._bad > self._max_bad:
            raise UserError(
                f"{file.shown}:{lines_before(file, unit) + line}: {problem.reason} "
                f"({self._bad} bad line(s) so far, --max-bad is {self._max_bad}); mend "
                "it, or raise --max-bad"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("train_tokenizer", __doc__ or "")
    parser.add_argument("sources", nargs="+", help="a file, pattern or dataset folder each")
    parser.add_argument("--output", type=Path, required=True, help="the .model file")
    parser.add_argument("--vocab-size", type=int, default=Training.vocab_size, help="tokens in all")
    parser.add_argument(
        "--per-source",
        type=int,
        default=Training.per_source,
        help="characters to learn from each source, on average; all are held in memory",
    )
    parser.add_argument(
        "--weights", type=float, nargs="+", help="relative amounts of text, one per source"
    )
    parser.add_argument("--model-type", choices=("bpe", "unigram"), default="bpe", help="algorithm")
    parser.add_argument(
        "--no-byte-fallback", action="store_true", help="rare characters become <unk>"
    )
    parser.add_argument("--no-split-digits", action="store_true", help="numbers may be one token")
    parser.add_argument(
        "--special-tokens", nargs="+", default=[], metavar="TOKEN", help="for example '<|user|>'"
    )
    parser.add_argument("--text-key", default="text", help="field of the text; a.b for nested ones")

    parser.add_argument("--max-bad", type=int, default=0, help="bad lines to leave out")
    parser.add_argument("--overwrite", action="store_true", help="replace the output")

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
        learnt_from = train_tokenizer(
            options.sources, options.output, training, options.overwrite, options.max_bad
        )
        for learnt in learnt_from:
            few = "" if learnt.taken >= learnt.wanted else f" of {learnt.wanted:,} wanted (all)"
            print(f"{learnt.source}: {learnt.taken:,} characters{few}")

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
