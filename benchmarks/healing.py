"""Seconds from a killed process to the next training step of the run, and until nothing is lost.

    python -m benchmarks.healing CONFIG [--kills 5] [--nproc 2] [key.path=value ...]

A search in a folder of its own is started under the launcher, one of its processes is killed (-9)
again and again, some steps after a checkpoint, and the launcher starts all of them again within the
job. Told are the seconds until the first step of the next start is logged, and until the run is
beyond the step at which the process was killed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastmix_mega.files import read_jsonl

CHECKPOINT_EVERY = 10
BEYOND = 4
"""Steps after a checkpoint at which a process is killed, at least."""
LIMIT_SECONDS = 600.0


def last_line(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "metrics.jsonl"
    rows = [row for row in read_jsonl(path) if "loss" in row] if path.exists() else []
    return rows[-1] if rows else {"step": 0, "restarts": 0}


def wait_until(run: subprocess.Popen[str], reached: Callable[[], bool]) -> float:
    """Returns the seconds that it took."""
    started = time.monotonic()
    while not reached():
        if run.poll() is not None or time.monotonic() - started > LIMIT_SECONDS:
            raise SystemExit("the run has ended, or does not go on")
        time.sleep(0.05)
    return time.monotonic() - started


def kill_one(run: subprocess.Popen[str], run_dir: Path, kill: int) -> tuple[float, float]:
    """Seconds to the next step, and until the run is beyond where it was."""
    before = last_line(run_dir)["step"]
    goal = (before // CHECKPOINT_EVERY + 2) * CHECKPOINT_EVERY + BEYOND
    wait_until(run, lambda: last_line(run_dir)["step"] >= goal)
    workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    victim = random.Random(kill).choice(workers)
    reached = last_line(run_dir)["step"]
    os.kill(int(victim), signal.SIGKILL)
    first = wait_until(run, lambda: last_line(run_dir)["restarts"] == kill)
    left = wait_until(run, lambda: last_line(run_dir)["step"] > reached)
    return first, first + left


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--nproc", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastmix-healing-") as directory:
        run_dir = Path(directory) / "run"
        keys = [
            *(f"run_dir={run_dir}", f"checkpoint.every={CHECKPOINT_EVERY}", "log.every=1"),
            *("train.steps=100000", "log.wandb=disabled"),
        ]
        command = [sys.executable, "-m", "fastmix_mega", "search", options.config, *keys]
        command += [*options.overrides, "--nproc", str(options.nproc)]
        command += ["--max-restarts", str(options.kills)]
        with (Path(directory) / "log").open("w") as log:
            run = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)
        try:
            for kill in range(1, options.kills + 1):
                first, beyond = kill_one(run, run_dir, kill)
                load = os.getloadavg()[0]
                print(
                    f"kill {kill}: {first:.1f} s to the next step, {beyond:.1f} s until nothing "
                    f"is lost (load {load:.0f})",
                    flush=True,
                )
        finally:
            run.terminate()
            run.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
