from __future__ import annotations

from megatron.core.datasets.indexed_dataset import DType

from fastmix_mega.data.indexed_format import token_dtype


def test_dtype_is_megatrons_choice() -> None:
    for size in (1, 65499, 65500, 65536, 10**6):
        assert token_dtype(size) == DType.optimal_dtype(size)
