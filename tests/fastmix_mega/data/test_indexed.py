from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from fastmix_mega.data.indexed import IndexedTokens, IndexedWriter, token_dtype
from fastmix_mega.errors import UserError

DTYPES = [np.dtype(np.uint16), np.dtype(np.int32)]
documents_of_tokens = some.lists(
    some.lists(some.integers(0, 65499), max_size=20), min_size=1, max_size=12
)


def write(prefix: Path, documents: list[list[int]], dtype: np.dtype = DTYPES[0]) -> IndexedTokens:
    with IndexedWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add_document(np.array(document, np.int64))
    return IndexedTokens(prefix)


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


def test_dtype_is_megatrons_choice() -> None:
    for size in (1, 65499, 65500, 65536, 10**6):
        from megatron.core.datasets.indexed_dataset import DType

        assert token_dtype(size) == DType.optimal_dtype(size)


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


def test_manifest_holds_true_checksums(tmp_path: Path) -> None:
    import hashlib

    found = write(tmp_path / "d", [[1], [2, 3]])
    assert found.manifest is not None
    assert found.manifest.bin_sha256 == hashlib.sha256(found.bin_path.read_bytes()).hexdigest()
    assert found.manifest.idx_sha256 == hashlib.sha256(found.idx_path.read_bytes()).hexdigest()
    assert json.loads((tmp_path / "d.manifest.json").read_text())["documents"] == 2


def test_a_manifest_under_its_old_name_is_read(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "d", np.dtype(np.uint16), {"vocab_size": 9}) as writer:
        writer.add_document([1, 2])
    new, old = tmp_path / "d.manifest.json", tmp_path / "d.json"
    new.rename(old)
    manifest = IndexedTokens(tmp_path / "d").manifest
    assert manifest is not None
    assert manifest.vocab_size == 9
    content = old.read_bytes()
    old.write_bytes(content[:-3])
    with pytest.raises(UserError, match=r"d\.json is not a manifest"):
        IndexedTokens(tmp_path / "d")
    # Written anew: the old one goes, if it is one.
    old.write_bytes(content)
    with IndexedWriter(tmp_path / "d", np.dtype(np.uint16)) as writer:
        writer.add_document([1])
    assert not old.exists()
    assert IndexedTokens(tmp_path / "d").num_tokens == 1


def test_a_users_own_file_is_no_manifest(tmp_path: Path) -> None:
    own = tmp_path / "d.json"
    own.write_text('{"text": "a corpus"}\n')
    with IndexedWriter(tmp_path / "d", np.dtype(np.uint16)) as writer:
        writer.add_document([1, 2])
    (tmp_path / "d.manifest.json").unlink()
    assert IndexedTokens(tmp_path / "d").manifest is None
    with IndexedWriter(tmp_path / "d", np.dtype(np.uint16)) as writer:
        writer.add_document([1])
    assert own.read_text() == '{"text": "a corpus"}\n'
