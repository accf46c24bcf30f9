"""Any array, cut anywhere into blocks, gives its elements."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from data_tools import json_arrays
from data_tools.json_arrays import BrokenArray, split_array

values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=12,
)


@given(some.lists(values, max_size=6), some.integers(1, 40), some.sampled_from([None, 0, 2]))
def test_elements_come_back(array: list[Any], block: int, indent: int | None) -> None:
    content = json.dumps(array, ensure_ascii=False, indent=indent).encode("utf-8", "surrogatepass")
    before, json_arrays.BLOCK = json_arrays.BLOCK, block
    try:
        found = list(split_array(io.BytesIO(b" \n" + content + b"\n"), 10**9))
        assert [json.loads(element) for element in found if isinstance(element, bytes)] == array
        # What is too long comes as its length, and hides no neighbour.
        short = list(split_array(io.BytesIO(content), 20))
        assert len(short) == len(found)
        for element, whole in zip(short, found, strict=True):
            assert isinstance(whole, bytes)
            assert element == whole or isinstance(element, int)
            assert isinstance(element, int) or len(whole) <= 20
        for broken in (content[:-1], content + b"x"):
            with pytest.raises(BrokenArray):
                list(split_array(io.BytesIO(broken), 10**9))
    finally:
        json_arrays.BLOCK = before
