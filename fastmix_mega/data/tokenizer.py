"""The tokenizer of a run, and the hash by which its data is recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from fastmix_mega.errors import UserError


class Tokenizer:
    """A sentencepiece model.

    Args:
        path: of the .model file.

    Raises:
        UserError: if it cannot be read, is no sentencepiece model, or has no end-of-document piece.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"tokenizer: cannot read {path}: {error.strerror}") from None
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError:
            raise UserError(f"tokenizer: {path} is not a sentencepiece model") from None
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.vocab_size = int(self._model.vocab_size())
        self.eod = int(self._model.eos_id())
        """The token that ends every document."""
        if self.eod < 0:
            raise UserError(f"tokenizer: {path} has no </s>; train it with an end-of-sentence id")

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, without the end-of-document token."""
        return [np.asarray(ids, np.int32) for ids in self._model.encode(list(texts), num_threads=1)]

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._model.decode([int(token) for token in tokens]))
