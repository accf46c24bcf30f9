"""The tokenizer of a run, and the hash by which its data is recognised.

Two kinds of file: a sentencepiece `.model`, and the `tokenizer.json` of Hugging Face's tokenizers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastmix_mega.data.tokenizer_backend import After, Backend, Ids, Places, Spans, names_pattern
from fastmix_mega.data.tokenizer_json import JsonBackend
from fastmix_mega.data.tokenizer_limits import LARGEST
from fastmix_mega.data.tokenizer_sentencepiece import SentencePieceBackend
from fastmix_mega.errors import UserError
from fastmix_mega.paths import rule_for
from fastmix_mega.reading import read_limited

_CONTINUATIONS = ("a word", "I am", "the two of us", "0 and 1", "z, y", "Wo")


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
            content = read_limited(path, LARGEST)
        except OSError as error:
            raise UserError(
                f"tokenizer: cannot read {path}: {error.strerror}{rule_for(path)}"
            ) from None
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.is_json = path.suffix == ".json"
        kind = JsonBackend if self.is_json else SentencePieceBackend
        self._backend: Backend = kind(content, self.path)
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
        assert isinstance(self._backend, JsonBackend)
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
