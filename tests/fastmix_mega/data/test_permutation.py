from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from fastmix_mega.data.permutation import permute


@given(some.integers(1, 3000), some.integers(0, 2**64 - 1))
@settings(max_examples=150, deadline=None)
def test_every_place_is_taken_once(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


@given(some.integers(1, 2**60), some.integers(0, 2**64 - 1), some.data())
@settings(max_examples=150, deadline=None)
def test_any_size_and_any_part(size: int, key: int, data: some.DataObject) -> None:
    """A part gives what the whole gives, distinct indices go to distinct places inside."""
    indices = data.draw(some.lists(some.integers(0, size - 1), max_size=8, unique=True))
    places = permute(np.array(indices, np.int64), size, key)
    assert len(set(places.tolist())) == len(indices)
    assert all(0 <= place < size for place in places)
    one_by_one = [int(permute(np.array([index]), size, key)[0]) for index in indices]
    assert places.tolist() == one_by_one


@pytest.mark.parametrize("size", [1000, 1024, 4097])
def test_orders_look_random(size: int) -> None:
    """Over many keys, each index's place is uniform, and neighbours' places are independent."""
    places = np.stack([permute(np.arange(size), size, key) for key in range(400)])  # [keys, size]
    expected, tolerance = (size - 1) / 2, 5 * size / np.sqrt(12 * 400)
    assert np.abs(places[:, :50].mean(0) - expected).max() < tolerance
    gaps = places[:, 1:] - places[:, :-1]
    correlation = np.corrcoef(places[:, 0], places[:, 1])[0, 1]
    assert abs(correlation) < 0.2
    assert (np.abs(gaps) == 1).mean() < 5 / size
    fixed_points = (places == np.arange(size)).sum(1).mean()
    assert fixed_points == pytest.approx(1, abs=0.3)
