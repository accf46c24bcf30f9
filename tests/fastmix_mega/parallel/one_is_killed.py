"""Two processes of one launch, of which rank 1 is killed while the launcher looks elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import torch

from fastmix_mega.cli.launch import run_processes
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.parallel import layout as layouts

AWAY_SECONDS = 1


def work(arguments: Sequence[str]) -> int:
    del arguments
    with layouts.start(ParallelSection()) as layout:
        everyone = layout.world.sum(torch.ones(1))
        if layout.rank == 1:
            launcher = os.getppid()
            away = f"kill -STOP {launcher}; echo; sleep {AWAY_SECONDS}; kill -CONT {launcher}"
            stopped = subprocess.Popen(["sh", "-c", away], stdout=subprocess.PIPE)
            assert stopped.stdout is not None
            stopped.stdout.readline()
            os.kill(os.getpid(), signal.SIGKILL)
        layout.world.sum(everyone)
    return 0


if __name__ == "__main__":
    sys.exit(run_processes(work, [], 2))
