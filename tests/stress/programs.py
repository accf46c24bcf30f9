"""Run a program of this folder in its short form."""

from __future__ import annotations

import subprocess
import sys

from tests.launch import clean_environment


def run_program(name: str, *words: str, limit: float = 900.0) -> str:
    """What it prints; it must end well.

    Its runs are forks, which a test's own process, full of threads, could not make.

    Args:
        name: of its module here.
        words: of its command line.
        limit: in seconds.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"tests.stress.{name}", *words],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout
