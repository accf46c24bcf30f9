"""Every tool's help: under the name that users type, with the defaults."""

from __future__ import annotations

import importlib

import pytest

from data_tools.commands import TOOLS


@pytest.mark.parametrize("tool", TOOLS)
def test_help(
    tool: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        importlib.import_module(f"data_tools.{tool}").main(["--help"])
    said = capsys.readouterr().out
    assert said.startswith(f"usage: fastmix data {tool} ")
    assert "python -m data_tools" not in said


def test_defaults_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        importlib.import_module("data_tools.preprocess").main(["--help"])
    said = capsys.readouterr().out
    for line in (
        "--max-bad MAX_BAD bad lines to tolerate (default: 0)",
        "--workers WORKERS processes that tokenize (default: 1)",
        "(default: plain)",
        "8 MiB with a tokenizer.json",
    ):
        assert line in " ".join(said.split())
