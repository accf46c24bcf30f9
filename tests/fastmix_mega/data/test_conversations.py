"""Packing and reading of conversations: nothing is lost, nothing twice, nothing is mixed up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from fastmix_mega.data.conversations import ConversationSource
from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.packing import GROUP, pack
from fastmix_mega.data.source import TokenSource, open_source
from fastmix_mega.errors import UserError

LENGTH = 16


@given(some.lists(some.integers(0, 9), max_size=300), some.integers(9, 40))
@settings(max_examples=100, deadline=None)
def test_packing_keeps_every_conversation_once(lengths: list[int], capacity: int) -> None:
    packing = pack(np.array(lengths, np.int64), capacity)
    sequences = [packing.conversations(number).tolist() for number in range(packing.count)]
    assert all(sequences)
    assert all(sum(lengths[each] for each in members) <= capacity for members in sequences)
    found = sorted(each for members in sequences for each in members)
    assert found == [number for number, length in enumerate(lengths) if length]
    # First fit: any two sequences of a group hold more than one's capacity together.
    groups = -(-len(lengths) // GROUP)
    assert packing.count <= 2 * sum(lengths) / capacity + groups


def write(path: Path, lengths: list[int], first: int = 1) -> str:
    """Conversation k is k, k, k, ...; its second half counts."""
    with IndexedWriter(path, token_dtype(2000), {"eod": 0}, masked=True) as writer:
        for number, length in enumerate(lengths):
            writer.add_document(
                np.full(length, first + number), np.arange(length) >= (length + 1) // 2
            )
    return str(path)


@pytest.fixture
def prefixes(tmp_path: Path) -> list[str]:
    draw = np.random.default_rng(0)
    return [
        write(tmp_path / "a", draw.integers(2, 12, 150).tolist()),
        write(tmp_path / "b", draw.integers(2, 12, 60).tolist(), first=500),
    ]


@pytest.mark.parametrize("packed", [True, False])
def test_an_epoch_holds_every_conversation_once(prefixes: list[str], packed: bool) -> None:
    source = open_source("s", prefixes, LENGTH, 1, packed=packed)
    assert isinstance(source, ConversationSource)
    assert source.num_samples < 100 if packed else source.num_samples == 210
    lengths = {
        first + number: length
        for first, file in zip((1, 500), source.files, strict=True)
        for number, length in enumerate(file.lengths.tolist())
    }
    for epoch in range(2):
        rows = source.read(np.arange(source.num_samples) + epoch * source.num_samples)
        assert rows.loss_mask is not None
        assert rows.documents is not None
        seen = []
        for tokens, mask, documents in zip(*vars(rows).values(), strict=True):
            for number in np.unique(documents):
                inside = np.flatnonzero(documents == number)
                value = tokens[inside[0]]
                if value == 0:  # Padding.
                    assert not mask[inside].any()
                    continue
                seen.append(int(value))
                length = lengths[seen[-1]]
                # The last token may be a label without being an input.
                assert len(inside) in (length, length - 1)
                assert (tokens[inside[0] : inside[0] + length] == value).all()
                counted = np.flatnonzero(mask[inside[0] : inside[0] + length - 1]) + 1
                assert counted.tolist() == list(range((length + 1) // 2, length))
                # A conversation's last input predicts nothing.
                assert not mask[inside[0] + length - 1 : inside[0] + length].any()
        assert sorted(seen) == sorted(lengths)


def test_a_sequence_depends_on_seed_name_and_index_alone(prefixes: list[str]) -> None:
    whole = open_source("s", prefixes, LENGTH, 3).read(np.arange(150))
    source = open_source("s", prefixes, LENGTH, 3)
    draw = np.random.default_rng(0)
    for _ in range(20):
        indices = draw.integers(0, 150, draw.integers(1, 9))
        found = source.read(indices)
        for here, there in zip(vars(found).values(), vars(whole).values(), strict=True):
            assert np.array_equal(here, there[indices])
    orders = {
        open_source(name, prefixes, LENGTH, seed).samples(np.arange(40)).tobytes()
        for name, seed in (("s", 1), ("s", 2), ("t", 1))
    }
    assert len(orders) == 3


def test_the_order_of_conversations_is_frozen(prefixes: list[str]) -> None:
    """A change of it would silently change every resumed run."""
    source = open_source("s", prefixes, LENGTH, seed=1)
    assert source.samples(np.arange(6))[:, 0].tolist() == [44, 122, 529, 58, 45, 124]


def test_held_out_sequences_are_apart(prefixes: list[str]) -> None:
    def conversations(source: object) -> set[int]:
        assert isinstance(source, ConversationSource)
        return set(source.samples(np.arange(source.num_samples)).ravel().tolist()) - {0}

    train = conversations(open_source("s", prefixes, LENGTH, 1, holdout=9))
    held = conversations(open_source("held", prefixes, LENGTH, 0, holdout=9, held_out=True))
    assert held
    assert not held & train
    assert train | held == conversations(open_source("s", prefixes, LENGTH, 1))


def test_truncation_is_counted(tmp_path: Path) -> None:
    """40 tokens: 20 to 39 count, none of the first 17; 24: 12 to 23, of which 5 are kept."""
    prefix = write(tmp_path / "long", [40, 24, 1, 10])
    source = open_source("s", [prefix], LENGTH, 1)
    assert isinstance(source, ConversationSource)
    fit = source.fit
    assert (fit.conversations, fit.sequences, fit.truncated, fit.left_out) == (4, 2, 2, 2)
    assert (fit.tokens, fit.tokens_cut, fit.answers_cut) == (75, 23 + 7, 20 + 7)
    rows = source.read(np.arange(2))
    assert rows.loss_mask is not None
    assert sorted(rows.loss_mask.sum(1).tolist()) == [5, 5]
    assert sorted(rows.tokens[:, 0].tolist()) == [2, 4]
    assert source.num_tokens == 2 * LENGTH


def test_text_and_conversations_are_told_apart(prefixes: list[str], tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "text", token_dtype(2000)) as writer:
        writer.add_document(np.arange(100))
    assert isinstance(open_source("t", [str(tmp_path / "text")], LENGTH, 1), TokenSource)
    with pytest.raises(UserError, match="make them two sources"):
        open_source("t", [prefixes[0], str(tmp_path / "text")], LENGTH, 1)
