"""Start the processes of a run on this machine: what `--nproc` does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence


def under_launcher() -> bool:
    """Whether torchrun (or Slurm through torchrun) already started this process."""
    return "RANK" in os.environ


def default_processes() -> int:
    """One per GPU of this machine, or one."""
    import torch

    return max(1, torch.cuda.device_count())


def run_processes(arguments: Sequence[str], processes: int) -> int:
    """Run `python -m fastmix_mega ARGUMENTS` in several processes under torchrun.

    Returns:
        The exit code: 0 only if every process ended well.
    """
    command = [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--standalone", "--nproc-per-node", str(processes)),
        *("-m", "fastmix_mega", *arguments),
    ]
    environment = dict(os.environ)
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    try:
        return subprocess.run(command, env=environment).returncode
    except KeyboardInterrupt:
        # torchrun got the same signal and has stopped its processes.
        return 130
