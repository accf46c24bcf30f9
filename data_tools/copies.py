"""Which documents repeat another one: whole, in part, or nearly.

Two documents are copies if they share a given part of the smaller one's distinct runs of five
words, so that an excerpt is found inside a longer text. The comparison is exact; memory is about
100 bytes per word.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RUN = 5
"""Words in a run; a shorter document is one run."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Match:
    """A document that a text repeats."""

    name: str
    share: float
    """Of the smaller one's runs."""


def plain_words(text: str) -> list[str]:
    """Words in lower case: neither case nor punctuation nor spaces hide a copy."""
    return [word.lower() for word in _WORD.findall(text)]


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
