"""What a library of tokenizers must do for `Tokenizer`, and the types of texts and token ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Places = NDArray[np.int64]
"""[tokens, 2] where each token's characters start and end in its text."""
Spans = Sequence[tuple[int, int]]
"""Parts of a text, by the places where they start and end, in order."""
After = Literal["space", "text"]
"""What a text follows on: other text that ends with white space, or that does not."""
MARKER = re.compile(
    r"<[|\uff5c].+[|\uff5c]>|</?s>|<(?i:bos|eos|pad|mask|sep|cls)>|<(?:start|end)_of_\w+>"
    r"|\[/?[A-Z_]+\]"
)
"""What names of tokens look like that control a model, where the file does not say so."""


class Backend(Protocol):
    """A tokenizer by its own library. `Tokenizer` says what the methods and attributes mean."""

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


def names_pattern(names: Sequence[str]) -> re.Pattern[str]:
    """Finds any of the names, the longest where several start; nothing without names."""
    longest_first = sorted({name for name in names if name}, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
