"""The short form of the fault campaign: every place once, and moments in between."""

from __future__ import annotations

import pytest

from tests.stress.programs import run_program


@pytest.mark.distributed
def test_killed_and_resumed_equals_uninterrupted() -> None:
    said = run_program("fault_campaign", "--kills", "10", "--seed", "2")
    assert "10 kills (seed 2), 0 different" in said
    for place in ("kill-start", "kill-step", "kill-outer", "kill-save", "kill-seal", "moment"):
        assert f"{place}'" in said.splitlines()[-1], f"no kill met {place}"
