"""The tokenizer of a run, and the hash by which its data is recognised.

Two kinds of file: a sentencepiece `.model`, and the `tokenizer.json` of Hugging Face's tokenizers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from fastmix_mega.data.tokenizer_variants import (
    alias_of,
    json_variant,
    sentencepiece_types,
    sentencepiece_variant,
)
from fastmix_mega.errors import UserError
from fastmix_mega.paths import rule_for

Ids = NDArray[np.int32]
Places = NDArray[np.int64]
"""[tokens, 2] where each token's characters start and end in its text."""
Spans = Sequence[tuple[int, int]]
"""Parts of a text, by the places where they start and end, in order."""
END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|end|>", "<EOS>", "[EOS]")
"""What ends a document where a tokenizer.json has no tokenizer_config.json beside it."""


MARKER = re.compile(
    r"<[|\uff5c].+[|\uff5c]>|</?s>|<(?i:bos|eos|pad|mask|sep|cls)>|<(?:start|end)_of_\w+>"
    r"|\[/?[A-Z_]+\]"
)
"""What names of tokens look like that control a model, where the file does not say so."""


After = Literal["space", "text"]
"""What a text follows on: other text that ends with white space, or that does not."""
_CONTINUATIONS = ("a word", "I am", "the two of us", "0 and 1", "z, y", "Wo")


class _Backend(Protocol):
    vocab_size: int
    eod: int | None
    bos: int | None
    unknown: str | None
    """What text becomes that no token stands for."""
    special_tokens: list[str]
    may_drop: bool

    def add_special(self, name: str) -> None:
        """One more of `special_tokens`, if text could be kept from becoming it."""

    def encode(self, texts: Sequence[str]) -> list[Ids]: ...

    def encode_as(self, texts: Sequence[str], spelled: bool, continuing: bool) -> list[Ids]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...

    def token_id(self, token: str) -> int | None: ...

    def name_of(self, number: int) -> str: ...


class _SentencePiece:
    may_drop = False

    def __init__(self, content: bytes, path: str) -> None:
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError:
            raise UserError(f"tokenizer: {path} is not a sentencepiece model") from None
        self._content = content
        self.vocab_size = int(self._model.vocab_size())
        self.eod = _given(self._model.eos_id())
        self.bos = _given(self._model.bos_id())
        unknown = _given(self._model.unk_id())
        self.unknown: str | None = None if unknown is None else self.name_of(unknown)
        self._control, self._defined, self._prefixes = sentencepiece_types(content)
        # A piece that users defined may be text too, such as a run of spaces.
        self.special_tokens = self._control + [n for n in self._defined if MARKER.fullmatch(n)]
        self._variants: dict[tuple[bool, bool], Any] = {}

    def add_special(self, name: str) -> None:
        if name in self._defined:
            self.special_tokens.append(name)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        return self._encode(self._model, texts)

    def encode_as(self, texts: Sequence[str], spelled: bool, continuing: bool) -> list[Ids]:
        return self._encode(self._variant(spelled, continuing and self._prefixes), texts)

    @staticmethod
    def _encode(model: Any, texts: Sequence[str]) -> list[Ids]:
        found: list[Ids] = model.encode(list(texts), out_type="numpy", num_threads=1)
        return found

    def _variant(self, spelled: bool, continuing: bool) -> Any:
        # Text never becomes a control symbol of sentencepiece's, and always one that users defined.
        as_it_is = self._defined if spelled else self._control
        if not continuing and set(self.special_tokens) <= set(as_it_is):
            return self._model
        if (spelled, continuing) not in self._variants:
            changed = sentencepiece_variant(
                self._content, set(self.special_tokens), spelled=spelled, continuing=continuing
            )
            self._variants[spelled, continuing] = sentencepiece.SentencePieceProcessor(
                model_proto=changed
            )
        return self._variants[spelled, continuing]

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._model.decode([int(token) for token in tokens]))

    def token_id(self, token: str) -> int | None:
        number = int(self._model.piece_to_id(token))
        return number if self._model.id_to_piece(number) == token else None

    def name_of(self, number: int) -> str:
        return str(self._model.id_to_piece(number))


class _HuggingFace:
    def __init__(self, content: bytes, path: str) -> None:
        # One process per core encodes; the library's own threads would only compete with them.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import tokenizers

        try:
            self._model = tokenizers.Tokenizer.from_buffer(content)
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
        self.may_drop = _may_drop(json.loads(content), self._vocabulary)

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
            plain, self._model.encode_batch([texts[n] for n in plain], **_ALONE), strict=True
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
        encoded = model.encode("".join([*parts, text[done:]]), **_ALONE)
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
        encoded = model.encode_batch_fast(list(texts), **_ALONE)
        return [np.array(each.ids, np.int32) for each in encoded]

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
            made = tokenizers.Tokenizer.from_str(
                json_variant(self._model.to_str(), {}, continuing=continuing)[0]
            )
            made.encode_special_tokens = not spelled
        if not spelled and not continuing:
            self._renamed = same
        return made

    def decode(self, tokens: Sequence[int]) -> str:
        ids = [int(token) for token in tokens]
        return str(self._model.decode(ids, skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        return self._vocabulary.get(token)

    def name_of(self, number: int) -> str:
        return str(self._model.id_to_token(number))


_ALONE: dict[str, bool] = {"add_special_tokens": False}


class Tokenizer:
    """A sentencepiece model or a tokenizer.json.

    Args:
        path: of the .model or .json file, or of a folder that holds a tokenizer.json.
        eod: the token that ends a document, where the file's own is not meant.

    Attributes:
        sha256: of the file.
        vocab_size: the highest token id plus one.
        eod: the id that ends every document.
        bos: the id that may start one, or None.
        may_drop: whether text that it does not know becomes no token at all.
        special_tokens: the names of all tokens that control a model rather than stand for text.
        special_names: finds these names in a text.

    Raises:
        UserError: if it cannot be read, is of neither kind, or has no end-of-document token.
    """

    def __init__(self, path: str | Path, eod: str | None = None) -> None:
        path = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        self.path = str(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"tokenizer: cannot read {path}: {error.strerror}{rule_for(path)}"
            ) from None
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.is_json = path.suffix == ".json"
        kind = _HuggingFace if self.is_json else _SentencePiece
        self._backend: _Backend = kind(content, self.path)
        self.vocab_size = self._backend.vocab_size
        self.bos = self._backend.bos
        self.special_tokens = self._backend.special_tokens
        self.may_drop = self._backend.may_drop
        end = self._backend.eod if eod is None else self._backend.token_id(eod)
        if end is None and eod is not None:
            raise UserError(f"tokenizer: {path} has no token {eod!r}; name one that it has")
        if end is None:
            remedy = (
                "name its token, for example with --eod, or put its tokenizer_config.json beside it"
                if self.is_json
                else "train it with an end-of-sentence id"
            )
            what = "end-of-document token" if self.is_json else "</s>"
            raise UserError(f"tokenizer: {path} has no {what}; {remedy}")
        self.eod: int = end
        for number in (self.eod, self.bos):
            if number is not None:
                self._backend.add_special(self._backend.name_of(number))
        self._known: dict[After, bool] = {}
        self.special_names = names_pattern(self.special_tokens)
        self._is_special = np.zeros(self.vocab_size, bool)
        for name in (*self.special_tokens, self._backend.name_of(self.eod)):
            number = self._backend.token_id(name)
            if number is not None and (name != self._backend.unknown or number == self.eod):
                self._is_special[number] = True

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text as the library gives them, without the end-of-document token."""
        return self._backend.encode(texts)

    def encode_literally(self, texts: Sequence[str], after: After | None = None) -> list[Ids]:
        """As `encode`, but text that spells a special token stays text, where that can be done.

        `after`: what the texts follow on; without it they begin. Some tokenizers put a space before
        a text that begins.
        """
        return self._backend.encode_as(texts, spelled=False, continuing=self._continues(after))

    def encode_spelled(self, texts: Sequence[str], after: After | None = None) -> list[Ids]:
        """As `encode_literally`, but text that spells a special token becomes that token."""
        return self._backend.encode_as(texts, spelled=True, continuing=self._continues(after))

    def _continues(self, after: After | None) -> bool:
        """Whether texts after others lose the space that the tokenizer puts before them.

        Where the tokenizer drops the space at the end of what comes before, they need it. So what
        counts is which tokens the texts have as part of a whole.
        """
        if after is None:
            return False
        if after not in self._known:
            before = "x:\n" if after == "space" else "x="
            (start,) = self._backend.encode_as([before], spelled=False, continuing=False)
            wholes = self._backend.encode_as(
                [before + text for text in _CONTINUATIONS], spelled=False, continuing=False
            )
            matches = []
            for continuing in (True, False):
                rests = self._backend.encode_as(
                    _CONTINUATIONS, spelled=False, continuing=continuing
                )
                pairs = zip(wholes, rests, strict=True)
                matches.append(sum(w.tolist() == [*start, *rest] for w, rest in pairs))
            self._known[after] = matches[0] > matches[1]
        return self._known[after]

    def encode_marked(
        self, texts: Sequence[str], literal: Sequence[Spans]
    ) -> list[tuple[Ids, Places] | None]:
        """As `encode`, with the place of each token's characters; a tokenizer.json only.

        None for a text whose `literal` parts the tokenizer cannot keep as text.

        Args:
            texts: to encode.
            literal: of each text the parts in which the names of special tokens stay text.
        """
        assert isinstance(self._backend, _HuggingFace)
        return self._backend.encode_marked(texts, literal)

    def count_special(self, ids: Ids) -> int:
        """How many of the ids are special tokens, the one for unknown text left out."""
        return int(self._is_special[ids].sum())

    def decode(self, tokens: Sequence[int]) -> str:
        return self._backend.decode(tokens)

    def token_id(self, token: str) -> int | None:
        """The id of a token by its name in the vocabulary."""
        return self._backend.token_id(token)

    def name_of(self, number: int) -> str:
        """A token as it stands in the vocabulary, control tokens too."""
        return self._backend.name_of(number)


def names_pattern(names: Sequence[str]) -> re.Pattern[str]:
    """Finds any of the names, the longest where several start; nothing without names."""
    longest_first = sorted({name for name in names if name}, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


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


def _given(number: int) -> int | None:
    return int(number) if number >= 0 else None


def _named_tokens(path: Path) -> dict[str, str]:
    """What a tokenizer_config.json calls eos_token, bos_token and the like, where there is one."""
    try:
        content: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer: cannot read {path}: {error}") from None
    found: dict[str, str] = {}
    for name, token in content.items() if isinstance(content, dict) else ():
        if not name.endswith("_token"):
            continue
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[name] = token
    return found
