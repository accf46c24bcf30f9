"""The short form of the killed data tools: those that need no workers, once each."""

from __future__ import annotations

from tests.stress.programs import run_program


def test_killed_and_started_again_equals_uninterrupted() -> None:
    said = run_program("kill_tools", "--kills", "4", limit=300)
    assert "4 kills (seed 1), 0 wrong" in said
    for tool in ("train_tokenizer", "merge", "split", "dedup"):
        assert f"{tool}: " in said.splitlines()[-1]
