"""A source of conversations: token files with a loss mask, packed into sequences or one in each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.order import SampleOrder
from fastmix_mega.data.packing import Packing, pack
from fastmix_mega.data.rows import Rows


@dataclass(frozen=True)
class Fit:
    """How a source's conversations fit the sequence length; counts."""

    conversations: int
    """In the files."""
    sequences: int
    """That they make."""
    tokens: int
    """Of the files."""
    truncated: int
    """Conversations that are longer than a sequence; their ends are cut off."""
    tokens_cut: int
    answers_cut: int
    """Of the cut tokens, those that would have counted in the loss."""
    left_out: int
    """Conversations of which no answer is left, or of one token: nothing could be learnt."""

    def describe(self) -> str:
        """For people, in one line."""
        text = (
            f"{self.conversations:,} conversations in {self.sequences:,} sequences, of which "
            f"{self.used:.1f} tokens each are no padding"
        )
        if self.truncated:
            text += (
                f"; {self.truncated:,} are longer than a sequence and lose {self.tokens_cut:,} "
                f"tokens, {self.answers_cut:,} of them answers"
            )
        return text + (f"; {self.left_out:,} are left out" if self.left_out else "")

    @property
    def used(self) -> float:
        """Tokens of a sequence that are no padding, on average."""
        return (self.tokens - self.tokens_cut) / max(1, self.sequences)


class ConversationSource:
    """Sequences of whole conversations; opens in time that grows with their number (lengths only).

    A conversation takes its tokens' places in a sequence of s + 1 tokens. It is read as if it stood
    alone: attention does not leave it, and its first token is no label. Longer conversations are
    cut at s + 1 tokens, and counted. The sequence of (seed, name, index) depends on nothing else
    but s and `packed`.

    Args:
        name: of the source; part of the shuffle's key.
        files: with loss masks.
        seq_length: s.
        seed: of the run.
        holdout: sequences at the end that are kept out of training.
        held_out: take those sequences, and none of the others.
        packed: several conversations to a sequence; otherwise one, padded.
    """

    masked = True
    choices = 1

    def __init__(
        self,
        name: str,
        files: Sequence[IndexedTokens],
        seq_length: int,
        seed: int,
        holdout: int = 0,
        held_out: bool = False,
        packed: bool = True,
    ) -> None:
        self.name = name
        self.seq_length = seq_length
        self.files = list(files)
        self._ends = np.cumsum([file.num_sequences for file in files], dtype=np.int64)
        self._lengths = np.concatenate([file.lengths for file in files])
        self._offsets = [file.offsets for file in files]
        self._padding = next(
            (f.manifest.eod for f in files if f.manifest and f.manifest.eod is not None), 0
        )
        capacity = seq_length + 1
        kept, cut, answers_cut = self._fit(capacity)
        self._packing: Packing | None = None
        self._kept: NDArray[np.int64] | None = None
        if packed:
            self._packing = pack(kept, capacity)
            whole = self._packing.count
        else:
            self._kept = np.flatnonzero(kept)
            whole = len(self._kept)
        self.fit = Fit(
            conversations=len(self._lengths),
            sequences=whole,
            tokens=int(self._lengths.sum(dtype=np.int64)),
            truncated=int((self._lengths > capacity).sum()),
            tokens_cut=cut,
            answers_cut=answers_cut,
            left_out=int((kept == 0).sum()),
        )
        self.num_tokens = whole * seq_length
        """Of an epoch, as a run's budget counts them: padding is paid for too."""
        self._order = SampleOrder(name, seed, whole, holdout, held_out)
        self.num_samples = self._order.num_samples
        """Sequences in one epoch."""

    def subset(self, share: float) -> Self:
        """The same source, of which only a share is ever read (see `SampleOrder.subset`)."""
        part = copy.copy(self)
        part._order = self._order.subset(share)
        part.num_samples = part._order.num_samples
        return part

    def _fit(self, capacity: int) -> tuple[NDArray[np.int32], int, int]:
        """[N] tokens that each conversation takes (0: left out); tokens and answers cut off."""
        kept = np.minimum(self._lengths, capacity)
        kept[kept < 2] = 0  # A single token has nothing to predict.
        cut = answers_cut = 0
        for number in np.flatnonzero(self._lengths > capacity):
            mask = self._conversation(int(number))[1]
            if not mask[1:capacity].any():
                kept[number] = 0
            cut += len(mask) - capacity
            answers_cut += int(mask[capacity:].sum())
        return kept, cut, answers_cut

    def _conversation(self, number: int) -> tuple[NDArray[np.integer], NDArray[np.uint8]]:
        """Its tokens and loss mask, whole."""
        place = int(np.searchsorted(self._ends, number, side="right"))
        file = self.files[place]
        assert file.mask is not None
        within = number - (int(self._ends[place - 1]) if place else 0)
        start = int(self._offsets[place][within]) // file.dtype.itemsize
        span = slice(start, start + int(self._lengths[number]))
        return file.tokens[span], file.mask.tokens[span]

    def read(self, indices: NDArray[np.integer]) -> Rows:
        """Sequences by their place in the shuffled, endless order; see `TokenSource.read`."""
        return self._read_rows(self._order.places(indices))

    def _read_rows(self, sequences: NDArray[np.int64]) -> Rows:
        count, length = len(sequences), self.seq_length
        tokens = np.full((count, length + 1), self._padding, np.int64)
        mask = np.zeros((count, length), np.bool_)
        documents = np.zeros((count, length + 1), np.int32)
        for row, sequence in enumerate(sequences):
            place = number = 0
            for number, conversation in enumerate(self._members(int(sequence))):
                own, counted = self._conversation(int(conversation))
                end = min(place + len(own), length + 1)
                tokens[row, place:end] = own[: end - place]
                mask[row, place : end - 1] = counted[1 : end - place]
                documents[row, place:end] = number
                place = end
            documents[row, place:] = number + 1  # Padding is a document of its own.
        return Rows(tokens, mask, documents[:, :-1])

    def samples(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """[n, seq_length + 1] int64 tokens alone."""
        return self.read(indices).tokens

    def _members(self, sequence: int) -> NDArray[np.int64]:
        if self._packing is not None:
            return self._packing.conversations(sequence)
        assert self._kept is not None
        return self._kept[sequence : sequence + 1]
