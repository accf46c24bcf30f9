"""The short form of the healing campaign: what no other test does to a run, at one layout."""

from __future__ import annotations

import os

import pytest

from tests.stress.programs import run_program

SEED = ("--seed", "3")
"""By which the faults come in the middle of a run."""
KINDS = ("read-only", "memory", "checkpoints deleted of")


@pytest.mark.distributed
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_hurt_runs_end_like_the_uninterrupted_one() -> None:
    words = [word for kind in KINDS for word in ("--only", f"[ZeRO 1] {kind}")]
    said = run_program("healing_campaign", "--faults", "180", *SEED, *words)
    assert "3 faults (seed 3), 0 wrong" in said
