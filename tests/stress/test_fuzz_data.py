"""The short form of the fuzzing of token files and corpora, and that its cases reach every end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stress.fuzz_data import fuzz


def test_spoiled_data_is_an_error_or_correct(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fuzz(150, 2, tmp_path) == []
    shown = capsys.readouterr().out
    for outcome in (
        *("tokens: correct", "tokens: refused when opened", "tokens: refused by verify"),
        *("jsonl: correct", "jsonl: bad lines listed", "compressed: refused"),
    ):
        assert outcome in shown
