"""The tokenizer of a run, and the hash by which its data is recognised.

Two kinds of file: a sentencepiece `.model`, and the `tokenizer.json` of Hugging Face's tokenizers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from fastmix_mega.errors import UserError
from fastmix_mega.paths import rule_for

Ids = NDArray[np.int32]
Places = NDArray[np.int64]
"""[tokens, 2] where each token's characters start and end in its text."""
END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|end|>", "<EOS>", "[EOS]")
"""What ends a document where a tokenizer.json has no tokenizer_config.json beside it."""


class _Backend(Protocol):
    vocab_size: int
    eod: int | None
    bos: int | None
    special_tokens: list[str]
    may_drop: bool

    def encode(self, texts: Sequence[str]) -> list[Ids]: ...

    def encode_literally(self, texts: Sequence[str]) -> list[Ids]: ...

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
        self.vocab_size = int(self._model.vocab_size())
        self.eod = _given(self._model.eos_id())
        self.bos = _given(self._model.bos_id())
        ids = range(self.vocab_size)
        self.special_tokens = [
            self._model.id_to_piece(number) for number in ids if self._model.is_control(number)
        ]

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        found: list[Ids] = self._model.encode(list(texts), out_type="numpy", num_threads=1)
        return found

    # Text never becomes a control symbol of sentencepiece's.
    encode_literally = encode

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
        self.special_tokens = [token.content for token in added if token.special]
        self.may_drop = _may_drop(json.loads(content), self._vocabulary)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        encoded = self._model.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(each.ids, np.int32) for each in encoded]

    def encode_literally(self, texts: Sequence[str]) -> list[Ids]:
        self._model.encode_special_tokens = True
        try:
            return self.encode(texts)
        finally:
            self._model.encode_special_tokens = False

    def encode_with_places(self, texts: Sequence[str]) -> list[tuple[Ids, Places]]:
        encoded = self._model.encode_batch(list(texts), add_special_tokens=False)
        return [
            (np.array(each.ids, np.int32), np.array(each.offsets, np.int64).reshape(-1, 2))
            for each in encoded
        ]

    def decode(self, tokens: Sequence[int]) -> str:
        ids = [int(token) for token in tokens]
        return str(self._model.decode(ids, skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        return self._vocabulary.get(token)

    def name_of(self, number: int) -> str:
        return str(self._model.id_to_token(number))


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

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text, without the end-of-document token."""
        return self._backend.encode(texts)

    def encode_literally(self, texts: Sequence[str]) -> list[Ids]:
        """As `encode`, but text that spells a special token stays text."""
        return self._backend.encode_literally(texts)

    def encode_with_places(self, texts: Sequence[str]) -> list[tuple[Ids, Places]]:
        """As `encode`, with the place of each token's characters; a tokenizer.json only."""
        assert isinstance(self._backend, _HuggingFace)
        return self._backend.encode_with_places(texts)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._backend.decode(tokens)

    def name_of(self, number: int) -> str:
        """A token as it stands in the vocabulary, control tokens too."""
        return self._backend.name_of(number)


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
    """The special tokens that a tokenizer_config.json names; nothing where there is none."""
    try:
        content: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer: cannot read {path}: {error}") from None
    found: dict[str, str] = {}
    for name in ("eos_token", "bos_token"):
        token = content.get(name) if isinstance(content, dict) else None
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[name] = token
    return found
