"""A `tokenizer.json` of Hugging Face's tokenizers as the backend of a `Tokenizer`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastmix_mega.data.tokenizer_backend import MARKER, Ids, Places, Spans, names_pattern
from fastmix_mega.data.tokenizer_limits import (
    MOST_TOKENS,
    failures_told,
    require_bounded_growth,
)
from fastmix_mega.data.tokenizer_variants import alias_of, json_variant
from fastmix_mega.errors import UserError
from fastmix_mega.reading import parse_json, read_json

_ALONE: dict[str, bool] = {"add_special_tokens": False}
END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|end|>", "<EOS>", "[EOS]")
"""What ends a document where a tokenizer.json has no tokenizer_config.json beside it."""


class JsonBackend:
    """Of the `tokenizers` library, and of what a tokenizer_config.json beside the file names."""

    def __init__(self, content: bytes, path: str) -> None:
        # One process per core encodes; the library's own threads would only compete with them.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import tokenizers

        self._path = path
        try:
            plain = parse_json(content)
            if not isinstance(plain, dict) or not isinstance(plain.get("model"), dict):
                raise ValueError("no model")
            require_bounded_growth(plain, path)
            with failures_told(path):
                self._model = tokenizers.Tokenizer.from_buffer(content)
        except UserError:
            raise
        except Exception as error:
            # The library raises bare Exception for every malformed file.
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"tokenizer: {path} is not a tokenizer.json ({reason})") from None
        # A tokenizer that cuts or pads would drop text or add tokens in silence.
        self._model.no_truncation()
        self._model.no_padding()
        # What may come after the model adds tokens, which is not asked for here, and trims the
        # places of tokens, so that a token of spaces would seem to stand for nothing.
        self._model.post_processor = None
        self._vocabulary: dict[str, int] = self._model.get_vocab(with_added_tokens=True)
        if not self._vocabulary:
            raise UserError(f"tokenizer: {path} has no tokens")
        # Added tokens may leave holes: the highest id decides how many rows a model needs.
        self.vocab_size = max(self._vocabulary.values()) + 1
        if self.vocab_size > MOST_TOKENS:
            raise UserError(
                f"tokenizer: {path} has a token with the id {self.vocab_size - 1:,}; a model would "
                f"need as many rows. At most {MOST_TOKENS:,} are taken"
            )
        named = _named_tokens(Path(path).parent / "tokenizer_config.json")
        ends = [named["eos_token"]] if "eos_token" in named else END_TOKENS
        self.eod = next((self._vocabulary[t] for t in ends if t in self._vocabulary), None)
        self.bos = self._vocabulary.get(named.get("bos_token", ""))
        added = self._model.get_added_tokens_decoder().values()
        self._added = {token.content for token in added}
        self._stripping = {
            number: token.content
            for number, token in self._model.get_added_tokens_decoder().items()
            if token.lstrip or token.rstrip
        }
        self.special_tokens = [
            token.content for token in added if token.special or MARKER.fullmatch(token.content)
        ]
        for name in named.values():
            if name in self._vocabulary:
                self.add_special(name)
        self.unknown = _unknown_token(self._model)
        self._variants: dict[tuple[bool, bool], Any] = {}
        self._has_prefix: bool | None = None
        self._switch_works: bool | None = None
        self._renamed = False
        self.may_drop = _may_drop(plain, self._vocabulary)

    def add_special(self, name: str) -> None:
        may = name in self._added or MARKER.fullmatch(name)
        if may and name not in self.special_tokens:
            self.special_tokens.append(name)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        return self._encode(self._model, texts)

    def encode_as(self, texts: Sequence[str], spelled: bool, continuing: bool) -> list[Ids]:
        continuing = continuing and self._prefixes()
        if spelled or continuing or not self._ignores_names():
            return self._encode(self._variant(spelled, continuing), texts)
        self._model.encode_special_tokens = True
        try:
            return self.encode(texts)
        finally:
            self._model.encode_special_tokens = False

    def _controls(self) -> list[str]:
        """The special tokens that text must not become; the one for unknown text may be made."""
        ends = (self.eod, self.bos)
        return [
            name
            for name in self.special_tokens
            if name != self.unknown or self._vocabulary[name] in ends
        ]

    def _prefixes(self) -> bool:
        """Whether a text gets a space before it that it does not have."""
        if self._has_prefix is None:
            self._has_prefix = json_variant(self._model.to_str(), {}, continuing=True)[1]
        return self._has_prefix

    def _ignores_names(self) -> bool:
        """Whether the library's own switch keeps every special token's name as text."""
        if self._switch_works is None:
            names = self._controls()
            forms = [form for n in names for form in (n, f"x{n}x", f"x {n} x")]
            special = {self._vocabulary[name] for name in names}
            self._model.encode_special_tokens = True
            try:
                found = self.encode(forms)
            finally:
                self._model.encode_special_tokens = False
            self._switch_works = not any(special.intersection(ids.tolist()) for ids in found)
        return self._switch_works

    def encode_marked(
        self, texts: Sequence[str], literal: Sequence[Spans]
    ) -> list[tuple[Ids, Places] | None]:
        found: list[tuple[Ids, Places] | None] = [None] * len(texts)
        plain = [place for place, spans in enumerate(literal) if not spans]
        for place, each in zip(
            plain, self._encoded(self._model, [texts[n] for n in plain]), strict=True
        ):
            found[place] = self._own_places(texts[place], each.ids, _places(each))
        for place, spans in enumerate(literal):
            if spans:
                found[place] = self._encode_aliased(texts[place], spans)
        return found

    def _encode_aliased(self, text: str, literal: Spans) -> tuple[Ids, Places] | None:
        """With other names for the special tokens of `text` that are not in `literal`."""
        model = self._variant(spelled=False, continuing=False)
        if not self._renamed:
            return None
        kept = iter([*literal, (len(text) + 1, len(text) + 1)])
        start, end = next(kept)
        parts: list[str] = []
        origin: list[int] = []  # [characters of the new text + 1] where each stands in `text`
        done = 0
        for match in names_pattern(self._controls()).finditer(text):
            while end <= match.start():
                start, end = next(kept)
            if match.end() > start:
                continue
            alias = alias_of(self._vocabulary[match.group()])
            parts += [text[done : match.start()], alias]
            origin += [*range(done, match.start()), *[match.start()] * len(alias)]
            done = match.end()
        origin += range(done, len(text) + 1)
        (encoded,) = self._encoded(model, ["".join([*parts, text[done:]])])
        return self._own_places(text, encoded.ids, np.array(origin, np.int64)[_places(encoded)])

    def _own_places(self, text: str, ids: list[int], places: Places) -> tuple[Ids, Places]:
        """The white space that a special token takes away beside it is no part of it."""
        found = np.array(ids, np.int32)
        for place in np.flatnonzero(np.isin(found, list(self._stripping))):
            name = self._stripping[int(found[place])]
            start = text.find(name, *places[place].tolist())
            if start >= 0:
                places[place] = start, start + len(name)
        return found, places

    def _encode(self, model: Any, texts: Sequence[str]) -> list[Ids]:
        with failures_told(self._path):
            encoded = model.encode_batch_fast(list(texts), **_ALONE)
        return [np.array(each.ids, np.int32) for each in encoded]

    def _encoded(self, model: Any, texts: Sequence[str]) -> list[Any]:
        """With places."""
        with failures_told(self._path):
            found: list[Any] = model.encode_batch(list(texts), **_ALONE)
        return found

    def _variant(self, spelled: bool, continuing: bool) -> Any:
        if (spelled, continuing) not in self._variants:
            self._variants[spelled, continuing] = self._make_variant(spelled, continuing)
        return self._variants[spelled, continuing]

    def _make_variant(self, spelled: bool, continuing: bool) -> Any:
        import tokenizers

        names = [] if spelled else self._controls()
        aliases = {name: alias_of(self._vocabulary[name]) for name in names}
        content, other_steps = json_variant(self._model.to_str(), aliases, continuing=continuing)
        if spelled and not other_steps:
            return self._model
        try:
            made = tokenizers.Tokenizer.from_str(content)
        except Exception:
            # A vocabulary whose merges make a special token cannot do without its name.
            made = None
        same = made is not None and all(
            made.token_to_id(alias) == self._vocabulary[name] for name, alias in aliases.items()
        )
        if not same:
            with failures_told(self._path):
                made = tokenizers.Tokenizer.from_str(
                    json_variant(self._model.to_str(), {}, continuing=continuing)[0]
                )
            made.encode_special_tokens = not spelled
        if not spelled and not continuing:
            self._renamed = same
        return made

    def decode(self, tokens: Sequence[int]) -> str:
        ids = [int(token) for token in tokens]
        with failures_told(self._path):
            return str(self._model.decode(ids, skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        return self._vocabulary.get(token)

    def name_of(self, number: int) -> str:
        return str(self._model.id_to_token(number))


def _places(encoded: Any) -> Places:
    return np.array(encoded.offsets, np.int64).reshape(-1, 2)


def _unknown_token(model: Any) -> str | None:
    """The name of the token for unknown text, which every kind of model says in its own way."""
    if type(model.model).__name__ != "Unigram":
        return getattr(model.model, "unk_token", None)
    content: dict[str, Any] = json.loads(model.to_str())["model"]
    place = content.get("unk_id")
    return None if place is None else str(content["vocab"][place][0])


def _may_drop(content: Any, vocabulary: dict[str, int]) -> bool:
    """Whether the BPE of a tokenizer.json leaves out characters that it does not know."""
    model = content["model"]
    if model.get("type", "BPE") != "BPE" or model.get("unk_token") is not None:
        return False
    if model.get("byte_fallback"):
        return any(f"<0x{byte:02X}>" not in vocabulary for byte in range(256))
    # Byte-level tokenizers write a byte that prints as itself, the others as U+0100 and so on.
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    alphabet = [*map(chr, sorted(printed)), *(chr(256 + n) for n in range(256 - len(printed)))]
    steps = json.dumps([content.get("pre_tokenizer"), content.get("normalizer")])
    return '"ByteLevel"' not in steps or any(letter not in vocabulary for letter in alphabet)


def _named_tokens(path: Path) -> dict[str, str]:
    """What a tokenizer_config.json calls eos_token, bos_token and the like, where there is one."""
    try:
        content: Any = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"tokenizer: cannot read {path}: {error}") from None
    found: dict[str, str] = {}
    for name, token in content.items() if isinstance(content, dict) else ():
        if not name.endswith("_token"):
            continue
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[name] = token
    return found
