"""Questions and answers made of text that every installation holds: instruction data to try with.

Each kind reads Python files or package descriptions, or counts, and yields (identifier, question,
answer); identifiers and order depend on nothing but the files' content.
"""

from __future__ import annotations

import ast
import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_tools.texts import Document, FilesCorpus, MetadataCorpus, read_documents


@dataclass(frozen=True)
class Pair:
    """One question and its answer."""

    identifier: str
    question: str
    answer: str


class _Named(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    max_pairs: Annotated[int, Field(gt=0)] = 20_000
    """Pairs to take at most."""


class _FromFiles(_Named):
    root: str
    """A folder, or `python:stdlib`, `package:NAME`, `site-packages`."""
    patterns: list[str] = ["**/*.py"]
    exclude: list[str] = []


class DocstringQuestions(_FromFiles):
    """What does a function do? The first paragraph of its docstring."""

    kind: Literal["docstring_questions"]


class SignatureQuestions(_FromFiles):
    """How is a function called? Its first line."""

    kind: Literal["signature_questions"]


class CompletionQuestions(_FromFiles):
    """The first lines of a function; its next ones."""

    kind: Literal["completion_questions"]


class SectionQuestions(_Named):
    """The heading of a package's description; the first paragraph below it."""

    kind: Literal["section_questions"]


class Arithmetic(_Named):
    """Sums, differences and products of small numbers."""

    kind: Literal["arithmetic"]
    largest: Annotated[int, Field(gt=1, le=999)] = 99


class WrongAnswers(_Named):
    """Questions of some sources, each with the answer to a question of another source."""

    kind: Literal["wrong_answers"]
    questions: Annotated[list[str], Field(min_length=1)]
    answers: Annotated[list[str], Field(min_length=1)]
    """Sources that are none of `questions`."""

    @model_validator(mode="after")
    def _answers_are_wrong(self) -> WrongAnswers:
        both = sorted(set(self.questions) & set(self.answers))
        if both:
            raise ValueError(f"{both[0]!r} is in questions and in answers: these would be right")
        return self


Instructions = Annotated[
    DocstringQuestions
    | SignatureQuestions
    | CompletionQuestions
    | SectionQuestions
    | Arithmetic
    | WrongAnswers,
    Field(discriminator="kind"),
]


def read_pairs(source: Instructions, base: Path) -> Iterator[Pair]:
    """All pairs of a source but `wrong_answers`, in a fixed pseudo-random order.

    Args:
        source: what to make.
        base: relative roots start here.

    Raises:
        UserError: if a folder or package is missing or holds no text.
    """
    assert not isinstance(source, WrongAnswers), "wrong answers are made of other sources' pairs"
    if isinstance(source, Arithmetic):
        return _arithmetic(source)
    if isinstance(source, SectionQuestions):
        documents = read_documents(MetadataCorpus(name=source.name, kind="metadata"), base)
        return _of_documents(documents, _sections)
    files = files_of(source)
    assert files is not None
    makers: dict[str, Callable[[str], Iterator[tuple[str, str]]]] = {
        "docstring_questions": _docstrings,
        "signature_questions": _signatures,
        "completion_questions": _completions,
    }
    return _of_documents(read_documents(files, base), makers[source.kind])


def files_of(source: Instructions) -> FilesCorpus | None:
    """The files that a source reads, if it reads any of its own."""
    if not isinstance(source, _FromFiles):
        return None
    return FilesCorpus(
        name=source.name,
        kind="files",
        root=source.root,
        patterns=source.patterns,
        exclude=source.exclude,
    )


def wrong_pairs(source: WrongAnswers, pairs: Mapping[str, Sequence[Pair]]) -> Iterator[Pair]:
    """Questions of one source in turn, each with the answer of a random pair of another."""
    generator = random.Random(source.name)
    for number in range(source.max_pairs):
        asked = pairs[source.questions[number % len(source.questions)]]
        answered = pairs[generator.choice(source.answers)]
        question, answer = generator.choice(asked), generator.choice(answered)
        yield Pair(f"wrong/{number}", question.question, answer.answer)


def _of_documents(
    documents: Iterator[Document], make: Callable[[str], Iterator[tuple[str, str]]]
) -> Iterator[Pair]:
    for identifier, text in documents:
        for number, (question, answer) in enumerate(make(text)):
            yield Pair(f"{identifier}#{number}", question, answer)


def _functions(code: str) -> Iterator[ast.FunctionDef]:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def first_paragraph(text: str) -> str:
    """Its words in one line."""
    return " ".join(re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0].split())


def _docstrings(code: str) -> Iterator[tuple[str, str]]:
    for node in _functions(code):
        answer = first_paragraph(ast.get_docstring(node) or "")
        if 20 <= len(answer) <= 240:
            yield f"What does the function {node.name} do?", answer


def _signatures(code: str) -> Iterator[tuple[str, str]]:
    for node in _functions(code):
        arguments = ast.unparse(node.args)
        if 4 <= len(arguments) <= 160:
            yield f"How is the function {node.name} called?", f"{node.name}({arguments})"


def _completions(code: str) -> Iterator[tuple[str, str]]:
    lines = code.split("\n")
    for node in _functions(code):
        start, end = node.lineno - 1, node.end_lineno or node.lineno
        body = lines[start:end]
        if not 6 <= len(body) <= 30:
            continue
        question, answer = "\n".join(body[:4]), "\n".join(body[4:8])
        if len(question) <= 240 and 20 <= len(answer) <= 240:
            yield f"Complete this code:\n{question}", answer


def _sections(text: str) -> Iterator[tuple[str, str]]:
    parts = re.split(r"^#+ +(.+)$", text, flags=re.MULTILINE)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        answer = first_paragraph(body)
        if 20 <= len(answer) <= 240 and len(heading) <= 80:
            yield f"What is there to say on {heading.strip()}?", answer


def _arithmetic(source: Arithmetic) -> Iterator[Pair]:
    signs: dict[str, Callable[[int, int], int]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
    }
    numbers = range(source.largest + 1)
    asked = list(itertools.product(numbers, signs, numbers))
    random.Random(source.name).shuffle(asked)
    for a, sign, b in asked[: source.max_pairs]:
        yield Pair(f"arithmetic/{a}{sign}{b}", f"What is {a} {sign} {b}?", str(signs[sign](a, b)))
