"""Encode with the gigatoken library, and make sure that it does what the tokenizer's own does.

Two differences are known or possible. gigatoken takes control tokens that a text spells for the
tokens themselves: such documents go to the tokenizer's own library. Anything else would be a
mistake of the library: the first document of every file, the first that a process encodes, and a
thousandth of all text are encoded by both, and a difference ends the run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.data.tokenizer_backend import Ids
from fastmix_mega.errors import UserError

BACKENDS = ("library", "gigatoken")
CHECKED = 0.001
"""Share of the characters that both libraries encode. The tokenizer's own takes up to 100 times as
long: a hundredth would double the time."""


class FastEncoder:
    """Token ids by gigatoken.

    Args:
        tokenizer: what is right.
        encode: how it encodes texts that spell special tokens; by default as its library does.

    Raises:
        UserError: if gigatoken is not installed or does not know this kind of tokenizer.
    """

    def __init__(
        self, tokenizer: Tokenizer, encode: Callable[[Sequence[str]], list[Ids]] | None = None
    ) -> None:
        try:
            import gigatoken
        except ImportError:
            raise UserError(
                "--backend gigatoken: the package is not installed; pip install gigatoken==0.10.0, "
                "or leave the option out"
            ) from None
        load = gigatoken.Tokenizer
        try:
            self._fast: Any = (
                load(tokenizer.path)
                if tokenizer.is_json
                else load.from_sentencepiece(tokenizer.path)
            )
        except Exception as error:
            # The library raises errors of many types for what it cannot load.
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"--backend gigatoken cannot load {tokenizer.path} ({reason}); leave the option out"
            ) from None
        self._tokenizer, self._encode = tokenizer, encode
        self._special = tokenizer.special_names
        self._seen = self._checked = 0
        self._begins_file = False

    def begin_file(self) -> None:
        """The next document is compared, whatever the share so far."""
        self._begins_file = True

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text, without the end-of-document token.

        Raises:
            UserError: if the two libraries differ.
        """
        batch = list(texts)
        spelled = [place for place, text in enumerate(batch) if self._special.search(text)]
        compared = self._sample(batch)
        found = self.encode_fast(batch)
        slow = sorted({*spelled, *compared})
        if slow:
            encode = self._encode or self._tokenizer.encode
            right = encode([batch[place] for place in slow])
            unspelled = set(compared) - set(spelled)
            for place, ids in zip(slow, right, strict=True):
                if place in unspelled and not np.array_equal(found[place], ids):
                    raise UserError(
                        f"gigatoken and {self._tokenizer.path} differ for the text that starts "
                        f"{batch[place][:60]!r}; leave --backend out"
                    )
                found[place] = ids
        return found

    def _sample(self, texts: Sequence[str]) -> list[int]:
        compared = []
        for place, text in enumerate(texts):
            if self._begins_file or self._checked <= CHECKED * self._seen:
                compared.append(place)
                self._checked += len(text)
                self._begins_file = False
            self._seen += len(text)
        return compared

    def encode_fast(self, texts: list[str]) -> list[Ids]:
        """What gigatoken alone says."""
        # Every worker is a process of its own; the library's threads would only compete with them.
        layout = self._fast.encode_batch(texts, parallel=False).layout
        ids = np.asarray(layout.content.data).astype(np.int32, copy=False)
        ends = np.asarray(layout.offsets.data)
        return [ids[start:end] for start, end in itertools.pairwise(ends)]
