from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.errors import UserError
from tests.fastmix_mega.data.token_files import write


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
