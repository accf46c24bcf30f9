"""A hundred runs of the campaign."""

from __future__ import annotations

from tests.stress.clashing_names import campaign


def test_no_file_is_changed() -> None:
    said: list[str] = []
    assert campaign(100, 10**6, said.append) == []
    assert any("exit code 0" in line for line in said)
