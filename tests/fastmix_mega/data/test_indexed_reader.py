from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.errors import UserError
from tests.fastmix_mega.data.token_files import write


def test_documents_of_several_sequences(tmp_path: Path) -> None:
    """megatron's builder can put several sequences in a document; the tokens are the same."""
    builder = IndexedDatasetBuilder(str(tmp_path / "t.bin"), dtype=np.int32)
    builder.add_document(np.arange(10, dtype=np.int32), [4, 6])
    builder.add_document(np.arange(3, dtype=np.int32), [3])
    builder.finalize(str(tmp_path / "t.idx"))
    found = IndexedTokens(tmp_path / "t")
    assert (found.num_documents, found.num_sequences, found.num_tokens) == (2, 3, 13)
    assert found.lengths.tolist() == [4, 6, 3]
    assert found.offsets.tolist() == [0, 16, 40]


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("bin", lambda b: b[:-1], "has 9 bytes, but .*idx ends at byte 10"),
        ("bin", lambda b: b + b"\0", "has 11 bytes"),
        ("idx", lambda b: b[:-1], "need 102 bytes, it has 101"),
        ("idx", lambda b: b"X" + b[1:], "does not start like a Megatron index"),
        ("idx", lambda b: b[:9] + struct.pack("<Q", 2) + b[17:], "has version 2"),
        ("idx", lambda b: b[:17] + b"\x06" + b[18:], "6 is no type of tokens"),
        ("idx", lambda b: b[:17] + b"\x04" + b[18:], "one of them was truncated"),
        ("idx", lambda b: b + b"\0" * 3, "multimodal files are not supported"),
        ("idx", lambda b: b[:20], "does not start like"),
        ("manifest.json", lambda b: b[:-3], "is not a manifest"),
        ("manifest.json", lambda b: b.replace(b'"tokens": 5', b'"tokens": 6'), "says tokens = 6"),
        ("manifest.json", lambda b: b.replace(b"uint16", b"int32"), "says dtype = int32"),
    ],
)
def test_damage_is_named(tmp_path: Path, file: str, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / "d", [[1], [2, 3], [4, 5]])
    path = tmp_path / f"d.{file}"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        IndexedTokens(tmp_path / "d")


@pytest.mark.parametrize("kind", ["bin", "idx"])
def test_missing_file(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "d", [[1]])
    (tmp_path / f"d.{kind}").unlink()
    with pytest.raises(UserError, match=rf"d\.{kind} is missing"):
        IndexedTokens(tmp_path / "d")


@given(some.data())
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_mutated_index_is_an_error_or_changes_no_size(
    tmp_path: Path, data: some.DataObject
) -> None:
    """Any one byte of the index replaced: a clear error, or all sizes still agree."""
    if not (tmp_path / "d.idx").exists():
        write(tmp_path / "d", [[1], [2, 3], [4, 5]])
        (tmp_path / "whole").write_bytes((tmp_path / "d.idx").read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    content[data.draw(some.integers(0, len(content) - 1))] = data.draw(some.integers(0, 255))
    (tmp_path / "d.idx").write_bytes(content)
    size = None
    try:
        size = IndexedTokens(tmp_path / "d").num_tokens
    except UserError as error:
        assert "d.idx" in str(error)  # noqa: PT017
    assert size in (None, 5)
