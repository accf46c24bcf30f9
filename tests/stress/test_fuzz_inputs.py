"""The short form of the fuzzing of hostile inputs, and that its cases reach both ends."""

from __future__ import annotations

import subprocess
import sys

from tests.launch import clean_environment


def test_no_hostile_input_does_harm() -> None:
    """In a process of its own: it forks, and its forks hear of every file that is opened."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress.fuzz_inputs", "--count", "60", "--seed", "3"],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    for kind in ("huggingface", "run", "tokens", "configuration", "mixture", "blend"):
        assert f"'{kind}: refused'" in done.stdout
    assert ": valid'" in done.stdout
