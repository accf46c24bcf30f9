"""Multiple-choice questions as token files: one sequence per choice, whose tokens alone count.

    python -m data_tools.preprocess_choices questions.jsonl --tokenizer tokenizer.model \\
        --output-prefix data/targets/quiz

reads JSONL, JSON arrays or Parquet with `question`, `choices` (a list of texts) and `answer` (the
right one's place from 0, or its letter from A). Every question of a file has the same
number of choices. In the files the right choice comes first, and the manifest says how many choices
a question has: such a prefix can be a target or an evaluation set.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from data_tools.chat_encoding import ChatEncoder, ChatOptions
from data_tools.commands import run_command, tool_parser
from data_tools.fields import Blank, Problem
from data_tools.inputs import InputFile, cut_into_units, list_inputs
from data_tools.outputs import claim, recipe_of, token_output, tokenizer_inputs
from data_tools.pieces import Piece
from data_tools.pipes import spool_pipes
from data_tools.readers import ReadOptions, read_rows
from data_tools.templates import ChatTemplate, load_template
from fastmix_mega import __version__
from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Question:
    question: str
    choices: list[str]
    """The right one first."""


def preprocess_choices(
    inputs: Sequence[str | Path],
    tokenizer_path: Path,
    output_prefix: Path,
    template: str = "plain",
    overwrite: bool = False,
) -> tuple[int, int]:
    """Write the prefix; returns its questions and tokens.

    Raises:
        UserError: naming the file and line of the first question that cannot be used.
    """
    tokenizer = Tokenizer(tokenizer_path)
    encoder = ChatEncoder(tokenizer, ChatOptions(template), bos=False)
    with spool_pipes(output_prefix.parent) as pipes:
        files = list_inputs(inputs, pipes=pipes)
        questions = [question for file in files for question in read_questions(file)]
    if not questions:
        raise UserError(f"{', '.join(map(str, inputs))}: no question")
    rendered = _render(questions, load_template(template, tokenizer))
    recipe = recipe_of(
        tool="preprocess_choices",
        questions=[asdict(question) for question in questions],
        tokenizer=tokenizer.sha256,
        template=template,
    )
    manifest: dict[str, Any] = {
        "tokenizer_sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "eod": tokenizer.eod,
        "choices": len(questions[0].choices),
        "made_by": {"program": f"fastmix-mega {__version__}", "recipe": recipe},
    }
    read = [*(file.path for file in files), *tokenizer_inputs(tokenizer_path), template]
    tokens, dtype = 0, token_dtype(tokenizer.vocab_size)
    with (
        claim([token_output(output_prefix, recipe)], read, overwrite),
        IndexedWriter(output_prefix, dtype, manifest, masked=True, template=template) as writer,
    ):
        for place, found in enumerate(encoder.encode(rendered)):
            ids, mask = _sound(found, place // len(questions[0].choices) + 1)
            writer.add_document(ids, mask)
            tokens += len(ids)
    return len(questions), tokens


def _render(questions: Sequence[Question], template: ChatTemplate) -> list[list[Piece]]:
    """The pieces of text of every choice of every question, in order."""
    count = len(questions[0].choices)
    rendered: list[list[Piece]] = []
    for number, question in enumerate(questions, 1):
        if len(question.choices) != count:
            raise UserError(
                f"question {number} has {len(question.choices)} choices and the first one has "
                f"{count}; make a prefix for each number of choices"
            )
        for choice in question.choices:
            pieces = template.render(
                [
                    {"role": "user", "content": question.question},
                    {"role": "assistant", "content": choice},
                ]
            )
            rendered.append(_sound(pieces, number))
    return rendered


def _sound(found: Found | Problem, number: int) -> Found:
    if isinstance(found, Problem):
        raise UserError(f"question {number}: {found.reason}")
    return found


def read_questions(file: InputFile) -> Iterator[Question]:
    """Every line or row of a file, checked."""
    options, line = ReadOptions(), 0
    if file.kind == "text":
        raise UserError(f"{file.shown} is plain text; questions come as JSONL or Parquet")
    for unit in cut_into_units([file], "line"):
        for row in read_rows(file, unit, options, ("question", "choices", "answer")):
            line += 1
            if isinstance(row, Blank):
                continue
            found = row.reason if isinstance(row, Problem) else _question(row)
            if isinstance(found, str):
                raise UserError(f"{file.shown}:{line}: {found}")
            yield found


def _question(row: dict[str, Any]) -> Question | str:
    """Or what is wrong with the row."""
    question, choices, answer = (row.get(key) for key in ("question", "choices", "answer"))
    if not isinstance(question, str) or not question:
        return "'question' is not a text"
    if not isinstance(choices, list) or not all(isinstance(c, str) and c for c in choices):
        return "'choices' is not a list of texts"
    if len(choices) < 2 or len(set(choices)) < len(choices):
        return "'choices' must be at least two different texts"
    if isinstance(answer, str) and len(answer) == 1:
        answer = ord(answer.upper()) - ord("A")
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        return f"'answer' must be a place from 0 to {len(choices) - 1}, or its letter from A"
    others = [choice for place, choice in enumerate(choices) if place != answer]
    return Question(question, [choices[answer], *others])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("preprocess_choices", __doc__ or "")
    parser.add_argument("inputs", nargs="+", help="files, globs, or -, in order")
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="a sentencepiece .model or a tokenizer.json"
    )
    parser.add_argument("--output-prefix", type=Path, required=True, help="without .bin/.idx")
    parser.add_argument("--template", default="plain", help="plain, raw, hf, or a file")

    parser.add_argument(
        "--overwrite", action="store_true", help="replace finished files of another origin"
    )

    def work(options: argparse.Namespace) -> None:
        questions, tokens = preprocess_choices(
            options.inputs,
            options.tokenizer,
            options.output_prefix,
            options.template,
            options.overwrite,
        )
        print(f"{options.output_prefix}: {questions:,} questions, {tokens:,} tokens")

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
