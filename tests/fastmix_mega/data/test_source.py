from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.source import TokenSource

LENGTH = 8


@pytest.fixture
def prefixes(tmp_path: Path) -> list[str]:
    """Two files of consecutive numbers: 0..99 and 1000..1060."""
    for name, first, count in (("a", 0, 100), ("b", 1000, 61)):
        with IndexedWriter(tmp_path / name, token_dtype(2000)) as writer:
            writer.add_document(np.arange(first, first + count))
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def test_an_epoch_reads_every_sample_once(prefixes: list[str]) -> None:
    source = TokenSource("s", prefixes, LENGTH, seed=1)
    assert source.num_samples == 12 + 7
    for epoch in range(3):
        first = epoch * source.num_samples
        samples = source.samples(np.arange(first, first + source.num_samples))
        assert samples.shape == (19, LENGTH + 1)
        assert (np.diff(samples, axis=1) == 1).all()
        starts = sorted(samples[:, 0].tolist())
        assert starts == [*range(0, 96, 8), *range(1000, 1056, 8)]


def test_epochs_seeds_and_names_have_their_own_orders(prefixes: list[str]) -> None:
    def order(name: str, seed: int, epoch: int) -> list[int]:
        source = TokenSource(name, prefixes, LENGTH, seed)
        return source.samples(np.arange(19) + 19 * epoch)[:, 0].tolist()

    orders = [order("s", 1, 0), order("s", 1, 1), order("s", 2, 0), order("t", 1, 0)]
    assert len({tuple(each) for each in orders}) == 4
    assert order("s", 1, 0) == orders[0]


def test_a_sample_depends_on_seed_name_and_index_alone(prefixes: list[str]) -> None:
    """In blocks of any size and order, after any other reads, from a fresh object."""
    whole = TokenSource("s", prefixes, LENGTH, 3).samples(np.arange(50))
    source = TokenSource("s", prefixes, LENGTH, 3)
    random = np.random.default_rng(0)
    for _ in range(20):
        indices = random.integers(0, 50, random.integers(1, 9))
        assert np.array_equal(source.samples(indices), whole[indices])


def test_the_order_is_frozen(prefixes: list[str]) -> None:
    """A change of this order would silently change every resumed run."""
    source = TokenSource("s", prefixes, LENGTH, seed=1)
    assert source.samples(np.arange(6))[:, 0].tolist() == [1032, 24, 1048, 8, 1000, 48]


def test_too_short_a_source_has_no_samples(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "s", token_dtype(100)) as writer:
        writer.add_document(np.arange(LENGTH))
    assert TokenSource("s", [str(tmp_path / "s")], LENGTH, 0).num_samples == 0
