"""One process of several fails: is its error seen at once, and does the job end?"""

from __future__ import annotations

import os
import signal
import sys
import time

import torch

from fastmix_mega.parallel.layout import Layout

FAILING_ROUND = 3
LIMIT_SECONDS = 30.0
"""In which the traceback must be seen."""
MARK = "doctor: failing at "
KINDS = {"raising": "Traceback (most recent call last)", "killed": "SIGKILL"}
"""How a process fails, and the words by which the log must say so."""
ERROR = "CUDA out of memory, as the doctor says it"


def fail(layout: Layout, kind: str) -> None:
    """Sum up with the others for ever; the last process fails in the third round. Collective."""
    tensor = torch.ones(1024, device=layout.device)
    for number in range(10**9):
        if number == FAILING_ROUND and layout.rank == layout.world_size - 1:
            print(f"{MARK}{time.time()}", file=sys.stderr, flush=True)
            if kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError(ERROR)
        layout.world.sum(tensor).fill_(1.0)
