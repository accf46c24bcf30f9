"""What is told of a process that ended by itself, and of its peers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.launch import clean_environment


@pytest.mark.distributed
def test_the_killed_process_is_named_and_not_its_peers() -> None:
    """Its peer fails at once; the launcher looks a second later, as on a busy machine."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fastmix_mega.parallel.one_is_killed"],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 137, done.stdout
    assert "rank 0 failed:" in done.stdout
    assert "rank 1 was killed by SIGKILL" in done.stdout
