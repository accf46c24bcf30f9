"""Hugging Face's chat templates (Jinja, in tokenizer_config.json or a .jinja file).

Which text counts: what stands between `{% generation %}` and `{% endgeneration %}`, where the
template has these. Otherwise the template is rendered up to and including each answer, and an
answer is what it adds to the prompt before it, up to its last special token (the end of the turn).

A message may spell a special token. While the template is rendered a code point that no text may
hold stands inside such a name, so that it is known afterwards who wrote it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from data_tools.generated_text import marked_pieces, name_of
from data_tools.jinja_sandbox import (
    GROWTH,
    OWN_LENGTH,
    SECONDS,
    STANDS_FOR,
    TooLongError,
    TooSlowError,
    limits,
    make_environment,
)
from data_tools.messages import REASONING, Conversation, strings_in
from data_tools.pieces import Piece
from data_tools.readers import Problem
from data_tools.written_text import left_out
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.reading import read_json, read_limited

INSIDE = "\ufdd2"
"""Within the name of a special token that a message spells."""
_RESERVED = re.compile("[\ufdd0-\ufdd5]")
_ESCAPE = "\\ufdd2"
_SPELLED = re.compile(r"<\|[^|<>\s]{1,40}\|>")


class HuggingFaceTemplate:
    """One of Hugging Face's templates.

    Args:
        path: of a .jinja file or a tokenizer_config.json.
        tokenizer: a tokenizer.json, whose special tokens the template spells.
        protect: whether special tokens that messages spell stay text.

    Raises:
        UserError: if it cannot be read, or for a sentencepiece model.
    """

    spells_tokens = True

    def __init__(self, path: Path, tokenizer: Tokenizer, protect: bool = True) -> None:
        if not tokenizer.is_json:
            raise UserError(
                f"--template {path}: Hugging Face's templates spell special tokens, which the "
                f"sentencepiece model {tokenizer.path} never reads as such; give a tokenizer.json"
            )
        self.notes: Counter[str] = Counter()
        self._slow = 0
        texts = _read_template(path)
        self.name = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        self._special = tuple(tokenizer.special_tokens)
        self._names = _special_names(Path(tokenizer.path).parent / "tokenizer_config.json")
        self._spelled = tokenizer.special_names
        self._protect = protect
        spelled = {name for text in texts for name in _SPELLED.findall(text)}
        self._unknown = sorted(name for name in spelled if tokenizer.token_id(name) is None)
        environment = make_environment()
        try:
            # Compiling computes what is constant.
            with limits():
                self._templates = [environment.from_string(text) for text in texts]
        # It is Python's compiler in the end, which knows many errors.
        except Exception as error:
            raise UserError(f"--template {path}: {_one_line(error)}") from None
        self._marks = "endgeneration" in texts[0]

    def render(
        self, conversation: Conversation, tools: Sequence[Any] = ()
    ) -> list[Piece] | Problem:
        given = [{k: v for k, v in turn.items() if k != "weight"} for turn in conversation]
        if any(_RESERVED.search(text) for text in strings_in([given, list(tools)])):
            return Problem("a message holds one of the code points U+FDD0 to U+FDD5")
        messages, offered = (given, tools) if not self._protect else self._protected(given, tools)
        counts = [
            bool(turn.get("weight", 1)) for turn in conversation if turn["role"] == "assistant"
        ]
        try:
            with limits():
                if self._marks:
                    text = self._text(messages, offered)
                    found = marked_pieces(
                        text,
                        [turn["role"] for turn in messages],
                        counts,
                        lambda: self._text(_named(messages), offered),
                    )
                else:
                    found = self._by_difference(messages, offered, counts)
        except (jinja2.TemplateError, TooLongError, MemoryError) as error:
            self._slow += isinstance(error, TooSlowError)
            if self._slow > 1:
                raise UserError(
                    f"the chat template takes more than {SECONDS:.0f} s for a second conversation; "
                    "does it loop for ever? Give another one"
                ) from None
            return Problem(f"the chat template refuses it: {_one_line(error)}")
        except Exception as error:
            # A template is a program: it may fail in every way that Python knows.
            return Problem(f"the chat template fails: {_one_line(error)}")
        if isinstance(found, Problem):
            return found
        return self._checked(found, conversation, tools)

    def _checked(
        self, pieces: Sequence[Piece], conversation: Conversation, tools: Sequence[Any]
    ) -> list[Piece] | Problem:
        """With the places of what messages spell, if every message was written."""
        given = list(strings_in([conversation, tools]))
        # Filters such as tojson(ensure_ascii=true) write the code point as an escape.
        escapes = not any(_ESCAPE in text for text in given)
        clean = [self._cleaned(piece, escapes) for piece in pieces]
        whole = "".join(piece.text for piece in clean)
        learnt = "".join(piece.text for piece in clean if piece.counts)
        problem = left_out(conversation, tools, whole, learnt)
        if problem is not None:
            return problem
        for name in self._unknown:
            if name in whole:
                self.notes[
                    f"the chat template writes {name}, which is no token of the tokenizer: it "
                    "becomes text"
                ] += 1
        return clean

    def _cleaned(self, piece: Piece, escapes: bool) -> Piece:
        written = piece.text.replace(_ESCAPE, INSIDE) if escapes else piece.text
        parts = written.split(INSIDE)
        if len(parts) == 1:
            return piece
        text = "".join(parts)
        places, done = set(), 0
        for part in parts[:-1]:
            done += len(part)
            places.add(done)
        literal = [
            match.span()
            for match in self._spelled.finditer(text)
            if any(place in places for place in range(match.start() + 1, match.end()))
        ]
        return Piece(text, piece.counts, literal=literal)

    def _protected(self, *values: Any) -> Any:
        """The same values with a code point inside every special token that a text spells."""

        def of(value: Any) -> Any:
            if isinstance(value, str):
                return self._spelled.sub(lambda m: m.group()[:1] + INSIDE + m.group()[1:], value)
            if isinstance(value, dict):
                return {of(key): of(inner) for key, inner in value.items()}
            if isinstance(value, list | tuple):
                return [of(inner) for inner in value]
            return value

        if not any(self._spelled.search(text) for text in strings_in(values)):
            return values
        return tuple(of(value) for value in values)

    def _text(
        self, messages: Sequence[Any], tools: Sequence[Any] = (), prompt: bool = False
    ) -> str:
        template = self._templates[-1 if tools else 0]
        # Templates tell by None, as transformers gives it, that there are no tools or documents.
        text = template.render(
            messages=messages,
            tools=list(tools) or None,
            documents=None,
            add_generation_prompt=prompt,
            **self._names,
        )
        if len(text) > OWN_LENGTH:
            given = sum(map(len, strings_in([list(messages), list(tools)])))
            if len(text) > OWN_LENGTH + GROWTH * given:
                raise TooLongError(f"it writes {len(text):,} characters for {given:,}")
        return text

    def _by_difference(
        self, messages: Sequence[Any], tools: Sequence[Any], counts: list[bool]
    ) -> list[Piece] | Problem:
        text = self._text(messages, tools)
        pieces: list[Piece] = []
        done = 0
        weights = iter(counts)
        for number, turn in enumerate(messages):
            # What does not count need not be told from its prompt.
            if turn["role"] != "assistant" or not next(weights):
                continue
            after = self._text(messages[: number + 1], tools)
            start = self._start_of_answer(messages, tools, number, after)
            if not text.startswith(after) or start is None or start < done:
                return Problem(
                    "the chat template writes earlier messages anew when later ones follow, so "
                    "that answers cannot be told apart; give one with {% generation %} blocks, or "
                    "--train-on last"
                )
            end = len(after)
            kept = after.rstrip()
            if kept.endswith(self._special):
                end = len(kept)
            pieces += [Piece(text[done:start]), Piece(text[start:end], True)]
            done = end
        return [*pieces, Piece(text[done:])]

    def _start_of_answer(
        self, messages: Sequence[Any], tools: Sequence[Any], number: int, after: str
    ) -> int | None:
        """Where in `after`, the text up to and including an answer, it begins."""
        before = self._text(messages[:number], tools, prompt=True)
        if after.startswith(before):
            return len(before)
        # A prompt may open what this answer does not have, such as a thought. What both have is the
        # heading, unless the answer begins like that.
        base = self._text(messages[:number], tools) if number else ""
        if not after.startswith(base) or not before.startswith(base):
            return None
        common = len(base)
        for mine, theirs in zip(after[common:], before[common:], strict=False):
            if mine != theirs:
                break
            common += 1
        turn = messages[number]
        hidden = {k: STANDS_FOR for k in ("content", *REASONING) if turn.get(k)}
        other = self._text([*messages[:number], turn | hidden], tools)
        place = other.find(STANDS_FOR)
        if place < 0 or not after.startswith(other[:place]):
            return common
        return min(common, place)


def _named(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """With names in place of the messages' texts."""
    return [
        turn | {"content": name_of(number)} if turn["content"] else turn
        for number, turn in enumerate(messages)
    ]


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


def _read_template(path: Path) -> list[str]:
    """The template, and the one for conversations with tools where that is another."""
    if path.suffix != ".json":
        try:
            return [read_limited(path).decode("utf-8")]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"--template: cannot read {path}: {error}; it is plain, raw, hf, or a file"
            ) from None
    found: Any = _read_config(path).get("chat_template")
    named: dict[Any, Any] = {"default": found}
    if isinstance(found, list):
        entries = [each for each in found if isinstance(each, dict)]
        named = {str(each.get("name")): each.get("template") for each in entries}
    texts = [named[name] for name in ("default", "tool_use") if isinstance(named.get(name), str)]
    if not isinstance(named.get("default"), str):
        raise UserError(f"--template: {path} has no chat_template; name another file, or plain")
    return texts


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
        content = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--template: cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"--template: {path} is not a JSON object")
    return content


def _one_line(error: BaseException) -> str:
    if isinstance(error, TooLongError):
        return str(error) or "it takes longer than it may; does it loop for ever?"
    if isinstance(error, MemoryError):
        return "it needs more memory than it may"
    reason = " ".join(str(error).split())[:300]
    known = isinstance(error, jinja2.TemplateError)
    return reason if known else f"{type(error).__name__}: {reason}"
