"""Run the real command in real processes, and keep the whole log when something fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fastmix_mega.files import read_jsonl

LOGS = Path(__file__).parent.parent / "test-logs"


def fastmix(
    *arguments: str,
    timeout: float = 300,
    expect: int = 0,
    variables: dict[str, str] | None = None,
    umask: int = -1,
) -> str:
    """`python -m fastmix_mega ARGUMENTS`; returns its whole output.

    On another exit code than expected the log goes to test-logs/ and the test fails.
    """
    environment = clean_environment() | (variables or {})
    done = subprocess.run(
        [sys.executable, "-m", "fastmix_mega", *arguments],
        env=environment,
        umask=umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if done.returncode != expect:
        LOGS.mkdir(exist_ok=True)
        test = environment.get("PYTEST_CURRENT_TEST", "run").split("::")[-1].split(" ")[0]
        log = LOGS / f"{''.join(c if c.isalnum() else '_' for c in test)}.log"
        log.write_text(f"{arguments}\nexit code {done.returncode}\n\n{done.stdout}")
        raise AssertionError(f"exit code {done.returncode}, log in {log}:\n{done.stdout[-3000:]}")
    return done.stdout


def run_config(
    verb: str, settings: dict[str, Any], directory: Path, processes: int = 1, expect: int = 0
) -> Path:
    """Write `settings` to a file in `directory` and run a verb on it; returns the run folder."""
    directory.mkdir(parents=True, exist_ok=True)
    run_dir = directory / "run"
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(settings | {"run_dir": str(run_dir)}))
    fastmix(verb, str(path), "--nproc", str(processes), expect=expect)
    return run_dir


def column(run_dir: Path, file: str, key: str) -> np.ndarray:
    """One field of all lines of a run folder's JSONL file that have it."""
    rows = [row[key] for row in read_jsonl(run_dir / file) if key in row]
    return np.array(rows, np.float64)


def clean_environment() -> dict[str, str]:
    """This process's environment without what a launcher above would have set."""
    drop = ("RANK", "CI", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    kept = {name: text for name, text in os.environ.items() if name not in (*drop, "MASTER_PORT")}
    return kept | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


def fastmix_with_fault(fault: str, *arguments: str, processes: int = 2) -> tuple[int, str]:
    """Run `tests/faulty.py` under torchrun; returns its exit code and output."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(processes), "-m", "tests.faulty", *arguments),
        ],
        env=clean_environment() | {"FAULT": fault},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


def start_fastmix(*arguments: str, output: Path | None = None) -> subprocess.Popen[str]:
    """Start the command and go on; the caller waits for it.

    Args:
        output: where it writes; by default into a pipe, which a long run would fill.
    """
    stdout: Any = subprocess.PIPE if output is None else output.open("w")
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "fastmix_mega", *arguments],
            env=clean_environment(),
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        if output is not None:
            stdout.close()
