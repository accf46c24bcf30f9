from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastmix_mega.errors import UserError
from fastmix_mega.parallel import attempts


@pytest.fixture
def error_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As torchrun names it for rank 1 of its second start."""
    path = tmp_path / "attempt_1" / "1" / "error.json"
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    return path


def test_the_launcher_is_told_of_an_error(error_file: Path) -> None:
    with pytest.raises(UserError), attempts.failures_recorded(UserError):
        raise UserError("a wrong word")
    assert not error_file.exists()
    with pytest.raises(ZeroDivisionError), attempts.failures_recorded(UserError):
        print(1 / 0)
    told = json.loads(error_file.read_text())["message"]
    assert told["message"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in told["extraInfo"]["py_callstack"]


def test_an_end_on_purpose_is_remembered(error_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempts.end_before() is None
    attempts.mark_end(75)
    assert attempts.end_before() == 75
    # The first start of another launch has nothing behind it.
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert attempts.end_before() is None
    del error_file


def test_without_a_launcher_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    attempts.record_failure("a message")
    attempts.mark_end(2)
    assert attempts.end_before() is None
    assert attempts.keys_of_attempt("world") == "world-0"
