"""What cannot be known of files without a manifest is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_tools import verify
from fastmix_mega.data.indexed_writer import IndexedWriter


def make(prefix: Path, tokens: list[int]) -> str:
    with IndexedWriter(prefix, np.dtype(np.int32)) as writer:
        writer.add_document(tokens)
    Path(f"{prefix}.manifest.json").unlink()
    return str(prefix)


def test_without_a_vocabulary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = make(tmp_path / "bad", [1, -5, 3])
    assert verify.main([bad, "--deep"]) == 2
    assert "bad.bin: token -5 at offset 4 is negative" in capsys.readouterr().err
    good = make(tmp_path / "good", [1, 5, 3])
    assert verify.main([good, "--deep"]) == 0
    said = capsys.readouterr().out
    assert "the vocabulary is unknown: give --vocab-size" in said
    assert "there are no checksums" in said
    assert verify.main([good, "--deep", "--vocab-size", "6"]) == 0
    assert "vocabulary is unknown" not in capsys.readouterr().out
    assert verify.main([good, "--deep", "--vocab-size", "5"]) == 2
    assert verify.main([good, "--deep", "--vocab-size", "0"]) == 2
