"""The short form of the fault campaign: every place once, and moments in between."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.launch import clean_environment


@pytest.mark.distributed
def test_killed_and_resumed_equals_uninterrupted() -> None:
    # Its ranks are forks, which this process, full of threads, could not make.
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress.fault_campaign", "--kills", "10", "--seed", "2"],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "10 kills (seed 2), 0 different" in done.stdout
    for place in ("kill-start", "kill-step", "kill-outer", "kill-save", "kill-seal", "moment"):
        assert f"{place}'" in done.stdout.splitlines()[-1], f"no kill met {place}"
