"""A sentencepiece `.model` as the backend of a `Tokenizer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sentencepiece

from fastmix_mega.data.tokenizer_backend import MARKER, Ids
from fastmix_mega.data.tokenizer_variants import sentencepiece_types, sentencepiece_variant
from fastmix_mega.errors import UserError


class SentencePieceBackend:
    """Of the `sentencepiece` library."""

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


def _given(number: int) -> int | None:
    return int(number) if number >= 0 else None
