"""Samples of text in which n-grams are counted, and the counts as sparse rows."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fastmix_mega.arrays import FloatArray
from fastmix_mega.data.rows import Source
from fastmix_mega.errors import UserError

MOST_SOURCE_TOKENS = 4_000_000
"""Read of one source."""
MOST_TOKENS = 32_000_000
"""Read of all sources together."""

SECONDS_BETWEEN_LINES = 10.0
"""Of what is told while statistics are read; on a terminal the line renews itself more often."""

Tokens = NDArray[np.int64]
Item = TypeVar("Item")


def told(items: Sequence[Item], doing: str) -> Iterator[Item]:
    """Each item; in between, how many are done, where it takes long.

    Args:
        items: one after the other.
        doing: begins the line, for example `reading sources`.
    """
    terminal = sys.stderr.isatty()
    last = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= (0.5 if terminal else SECONDS_BETWEEN_LINES) and number < len(items):
            last = now
            line = f"n-gram statistics: {doing}, {number} of {len(items)}"
            print(f"{line:<79}", end="\r" if terminal else "\n", file=sys.stderr, flush=True)


def tokens_per_source(sources: int) -> int:
    """How many are read of each of so many sources, at most."""
    return min(MOST_SOURCE_TOKENS, MOST_TOKENS // sources)


def read_sequences(source: Source, tokens: int, least: int) -> Tokens:
    """[n, s + 1] the first sequences in a source's order, about `tokens` of them in all.

    Raises:
        UserError: if it holds conversations, or fewer than `least` sequences.
    """
    if source.masked:
        raise UserError(
            f"{source.name} holds conversations; bigrams are compared of text alone, where "
            "every token counts"
        )
    if source.num_samples < least:
        raise UserError(
            f"{source.name} holds fewer than {least} sequences of train.seq_length "
            f"{source.seq_length}: lower train.seq_length"
        )
    count = max(least, tokens // source.seq_length)
    return source.samples(np.arange(min(count, source.num_samples)))


def sparse_row(
    seen: NDArray[np.integer], frequencies: FloatArray, wanted: NDArray[np.integer]
) -> csr_array:
    """[1, D] the frequencies of the wanted numbers.

    Args:
        seen: [N] numbers that occur, sorted and distinct.
        frequencies: [N] of them.
        wanted: [D] sorted and distinct; what does not occur has frequency 0.
    """
    places = np.minimum(np.searchsorted(wanted, seen), len(wanted) - 1)
    hits = wanted[places] == seen
    rows = np.zeros(np.count_nonzero(hits), np.int64)
    return csr_array((frequencies[hits], (rows, places[hits])), shape=(1, len(wanted)))
