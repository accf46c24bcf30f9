from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from tests.fastmix_mega.data.token_files import write

DTYPES = [np.dtype(np.uint16), np.dtype(np.int32)]
documents_of_tokens = some.lists(
    some.lists(some.integers(0, 65499), max_size=20), min_size=1, max_size=12
)


@given(documents_of_tokens, some.sampled_from(DTYPES))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_megatron_reads_what_we_write_and_writes_the_same(
    tmp_path: Path, documents: list[list[int]], dtype: np.dtype
) -> None:
    ours = write(tmp_path / "ours", documents, dtype)
    assert ours.num_documents == len(documents)
    assert ours.tokens.tolist() == [token for document in documents for token in document]
    if ours.num_tokens:
        theirs = IndexedDataset(str(tmp_path / "ours"))
        assert [theirs[i].tolist() for i in range(len(theirs))] == documents
    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=dtype.type)
    for document in documents:
        builder.add_document(np.array(document, dtype), [len(document)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for kind in ("bin", "idx"):
        assert (tmp_path / f"ours.{kind}").read_bytes() == (
            tmp_path / f"theirs.{kind}"
        ).read_bytes()
    assert np.array_equal(IndexedTokens(tmp_path / "theirs").tokens, ours.tokens)


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    with (
        pytest.raises(OverflowError),
        IndexedWriter(tmp_path / "d", DTYPES[0]) as writer,
    ):
        writer.add_document([1, 2**80])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("token", [-1, 65536, 70000])
def test_a_token_never_wraps_around(tmp_path: Path, token: int) -> None:
    with (
        pytest.raises(OverflowError, match="does not fit into uint16"),
        IndexedWriter(tmp_path / "d", DTYPES[0]) as writer,
    ):
        writer.add_document([1, token])
    assert list(tmp_path.iterdir()) == []
