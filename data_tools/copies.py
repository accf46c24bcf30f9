"""Which documents repeat another one: whole, in part, or nearly.

Two documents are copies if they share a given part of the smaller one's distinct runs of five
words, so that an excerpt is found inside a longer text. In scripts without spaces between words a
character is a word. The comparison is exact; memory is about 100 bytes per word.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RUN = 5
"""Words in a run; a shorter document is one run."""
_WORD = re.compile(r"\w+")
_HIDDEN = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
"""Soft hyphens, joiners and the like: nobody sees them."""
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf"
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua980-\ua9df\uaa00-\uaa7f\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
"""Letters and marks of Thai, Lao, Tibetan, Myanmar, Khmer, Chinese, Japanese and their like."""


@dataclass(frozen=True)
class Match:
    """A document that a text repeats."""

    name: str
    share: float
    """Of the smaller one's runs."""


def plain_words(text: str) -> list[str]:
    """Words by which texts are compared: case, punctuation, spaces and forms of Unicode hide none.

    A text without a letter or digit is cut into its characters.
    """
    plain = text.casefold() if text.isascii() else _plain(text)
    found = _cut(plain, _WORD.findall(plain))
    return found or [character for character in plain if not character.isspace()]


def exact_words(text: str) -> list[str]:
    """As `plain_words`, but case and punctuation count: code that differs in them is other code."""
    if text.isascii():
        return text.split()
    plain = unicodedata.normalize("NFC", text)
    return _cut(plain, plain.split())


def _plain(text: str) -> str:
    # Some letters fold into others that have a composed form, and the other way round.
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _HIDDEN.sub("", unicodedata.normalize("NFKC", folded))


def _cut(text: str, words: list[str]) -> list[str]:
    """The words, cut into characters where their script has no spaces."""
    if text.isascii() or not _UNSPACED.search(text):
        return words
    return [part for word in words for part in _UNSPACED.sub(r" \g<0> ", word).split()]


class CopyIndex:
    """Remembers documents by their runs of words.

    Args:
        share: of the smaller document's runs that makes a copy.
        words: how a text is cut into words.
    """

    def __init__(self, share: float, words: Callable[[str], Sequence[str]] = plain_words) -> None:
        self._share = share
        self._words = words
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._holders: dict[int, list[int]] = {}

    def add(self, name: str, text: str) -> None:
        self._remember(name, self._runs(text))

    def match(self, text: str) -> Match | None:
        """The document that `text` repeats most, if enough of it."""
        return self._best(self._runs(text))

    def add_if_new(self, name: str, text: str) -> bool:
        """Add a document that repeats none before it; whether it was one."""
        runs = self._runs(text)
        if self._best(runs) is not None:
            return False
        self._remember(name, runs)
        return True

    def _remember(self, name: str, runs: set[int]) -> None:
        for run in runs:
            self._holders.setdefault(run, []).append(len(self._names))
        self._names.append(name)
        self._sizes.append(len(runs))

    def _best(self, runs: set[int]) -> Match | None:
        shared: Counter[int] = Counter()
        for run in runs:
            shared.update(self._holders.get(run, ()))
        best: Match | None = None
        for number, count in shared.items():
            share = count / min(len(runs), self._sizes[number])
            if share >= self._share and (best is None or share > best.share):
                best = Match(self._names[number], share)
        return best

    def _runs(self, text: str) -> set[int]:
        """64-bit hashes of all runs; empty without words."""
        words = self._words(text)
        if not words:
            return set()
        last = max(1, len(words) - RUN + 1)
        return {_hash(" ".join(words[start : start + RUN])) for start in range(last)}


def _hash(run: str) -> int:
    return int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "little")
