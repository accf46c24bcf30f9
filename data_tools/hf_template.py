"""Hugging Face's chat templates (Jinja, in tokenizer_config.json or a .jinja file).

Rendered in Jinja's sandbox with what `transformers` offers there, except for today's date: a
template that asks for it takes its own default, so that a run that goes on tomorrow is the same.

Which text counts: what stands between `{% generation %}` and `{% endgeneration %}`, where the
template has these. Otherwise the template is rendered up to and including each answer, and an
answer is what it adds to the prompt before it, up to its last special token (the end of the turn).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data_tools.readers import Problem
from data_tools.records import Conversation
from data_tools.templates import Piece
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError

START, END = "\ufdd0", "\ufdd1"
"""Around generated text while it is rendered: two code points that no text may hold."""


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: marks what the model is to write."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        block = nodes.CallBlock(self.call_method("_mark"), [], [], body)
        return block.set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{START}{caller()}{END}"


class HuggingFaceTemplate:
    """One of Hugging Face's templates.

    Args:
        path: of a .jinja file or a tokenizer_config.json.
        tokenizer: a tokenizer.json, whose special tokens the template spells.

    Raises:
        UserError: if it cannot be read, or for a sentencepiece model.
    """

    spells_tokens = True

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        if not tokenizer.is_json:
            raise UserError(
                f"--template {path}: Hugging Face's templates spell special tokens, which the "
                f"sentencepiece model {tokenizer.path} never reads as such; give a tokenizer.json"
            )
        self._path = path
        text = _read_template(path)
        self.name = hashlib.sha256(text.encode()).hexdigest()
        self._special = tuple(tokenizer.special_tokens)
        self._names = _special_names(Path(tokenizer.path).parent / "tokenizer_config.json")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateError as error:
            raise UserError(f"--template {path}: {error}") from None
        self._marks = "endgeneration" in text

    def render(self, conversation: Conversation) -> list[Piece] | Problem:
        messages = [
            {key: value for key, value in turn.items() if key != "weight"} for turn in conversation
        ]
        if any(START in turn["content"] or END in turn["content"] for turn in messages):
            return Problem("a message holds one of the code points U+FDD0 and U+FDD1")
        counts = [
            bool(turn.get("weight", 1)) for turn in conversation if turn["role"] == "assistant"
        ]
        try:
            if self._marks:
                return _marked(self._text(messages), counts)
            return self._by_difference(messages, counts)
        except jinja2.TemplateError as error:
            return Problem(f"the chat template refuses it: {error}")

    def _text(self, messages: list[dict[str, Any]], prompt: bool = False) -> str:
        return self._template.render(messages=messages, add_generation_prompt=prompt, **self._names)

    def _by_difference(
        self, messages: list[dict[str, Any]], counts: list[bool]
    ) -> list[Piece] | Problem:
        text = self._text(messages)
        pieces: list[Piece] = []
        done = answers = 0
        for number, turn in enumerate(messages):
            if turn["role"] != "assistant":
                continue
            before = self._text(messages[:number], prompt=True)
            after = self._text(messages[: number + 1])
            if not (text.startswith(after) and after.startswith(before) and len(before) >= done):
                return Problem(
                    "the chat template writes earlier messages anew when later ones follow, so "
                    "that answers cannot be told apart; give one with {% generation %} blocks"
                )
            end = len(after)
            kept = after.rstrip()
            if kept.endswith(self._special):
                end = len(kept)
            pieces += [
                Piece(text[done : len(before)]),
                Piece(text[len(before) : end], counts[answers]),
            ]
            done, answers = end, answers + 1
        return [*pieces, Piece(text[done:])]


def _marked(text: str, counts: list[bool]) -> list[Piece] | Problem:
    parts = text.split(START)
    if len(parts) - 1 != len(counts):
        return Problem(
            f"the chat template marked {len(parts) - 1} pieces for {len(counts)} answers"
        )
    pieces = [Piece(parts[0])]
    for part, counted in zip(parts[1:], counts, strict=True):
        answer, _, rest = part.partition(END)
        pieces += [Piece(answer, counted), Piece(rest)]
    return pieces


def find_template(tokenizer: Tokenizer) -> Path:
    """The file beside a tokenizer that holds its template; UserError if there is none."""
    folder = Path(tokenizer.path).parent
    for path in (folder / "chat_template.jinja", folder / "tokenizer_config.json"):
        if path.is_file():
            return path
    raise UserError(
        f"--template hf: neither chat_template.jinja nor tokenizer_config.json stands beside "
        f"{tokenizer.path}; name the template's file"
    )


def _read_template(path: Path) -> str:
    if path.suffix != ".json":
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"--template: cannot read {path}: {error}; it is plain, raw, hf, or a file"
            ) from None
    found: Any = _read_config(path).get("chat_template")
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    if not isinstance(found, str):
        raise UserError(f"--template: {path} has no chat_template; name another file, or plain")
    return found


def _special_names(path: Path) -> dict[str, str]:
    """bos_token, eos_token and the like, for the template."""
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for name, token in _read_config(path).items():
        token = token.get("content") if isinstance(token, dict) else token
        if name.endswith("_token") and isinstance(token, str):
            found[name] = token
    return found


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--template: cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"--template: {path} is not a JSON object")
    return content


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes what HTML would misread.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
