"""Questions and answers as plain text, from what people write for people: FAQs and docstrings."""

from __future__ import annotations

import ast
import doctest
import re

_HEADING = re.compile(r"^=head2 (.+)$", re.MULTILINE)
_MARKUP = re.compile(r"[A-Z]<+ ?([^<>]*?) ?>+")


def pod_questions(text: str) -> list[str]:
    """One document per `=head2` heading that asks, with the paragraphs below it as the answer."""
    parts = _HEADING.split(text)[1:]
    found = []
    for heading, body in zip(parts[::2], parts[1::2], strict=True):
        question = _MARKUP.sub(r"\1", heading).strip()
        section = _MARKUP.sub(r"\1", re.split(r"^=head1 ", body, flags=re.MULTILINE)[0])
        lines = [line for line in section.splitlines() if not line.startswith("=")]
        answer = "\n".join(lines).strip()
        if question.endswith("?") and answer:
            found.append(f"Question: {question}\nAnswer: {answer}")
    return found


def doctest_questions(code: str) -> list[str]:
    """One document per docstring: every example that prints something, as question and answer."""
    parser = doctest.DocTestParser()
    found = []
    for text in docstrings(code):
        try:
            examples = parser.get_examples(text)
        except ValueError:
            continue  # An example that doctest itself cannot read.
        asked = [
            f"Question: {example.source.strip()}\nAnswer: {example.want.strip()}\n"
            for example in examples
            if example.want.strip()
        ]
        if asked:
            found.append("\n".join(asked))
    return found


def docstrings(code: str) -> list[str]:
    """The docstrings of a Python file; none if it does not parse."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
    return [text for text in found if text]
