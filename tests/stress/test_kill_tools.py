"""The short form of the killed data tools: those that need no workers, once each."""

from __future__ import annotations

import subprocess
import sys

from tests.launch import clean_environment


def test_killed_and_started_again_equals_uninterrupted() -> None:
    # The tools are forks, which this process, full of threads, could not make.
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress.kill_tools", "--kills", "4"],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "4 kills (seed 1), 0 wrong" in done.stdout
    for tool in ("train_tokenizer", "merge", "split", "dedup"):
        assert f"{tool}: " in done.stdout.splitlines()[-1]
