"""The short form of the fuzzing, and that its cases reach what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stress.fuzz import fuzz


def test_no_input_ends_in_a_stack_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz(200, 1, 0, tmp_path) == []
    shown = capsys.readouterr().out
    for outcome in ("refused", "mistakes", "valid"):
        assert outcome in shown
