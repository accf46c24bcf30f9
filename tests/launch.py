"""Run the real command in real processes, and keep the whole log when something fails."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fastmix_mega.files import read_jsonl

VISIBLE_GPUS = os.environ.get("CUDA_VISIBLE_DEVICES")
"""As the tests were started."""
LOGS = Path(__file__).parent.parent / "test-logs"


def fastmix(
    *arguments: str,
    timeout: float = 300,
    expect: int = 0,
    variables: dict[str, str] | None = None,
    umask: int = -1,
    folder: Path | None = None,
) -> str:
    """`python -m fastmix_mega ARGUMENTS` in a folder; returns its whole output.

    On another exit code than expected the log goes to test-logs/ and the test fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "fastmix_mega", *arguments],
        env=clean_environment() | (variables or {}),
        umask=umask,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    require_code(expect, done.returncode, arguments, done.stdout)
    return done.stdout


def require_code(expect: int, code: int, arguments: tuple[str, ...], output: str) -> None:
    """Keep the whole output in test-logs/ and fail the test, if the exit code is another one."""
    if code != expect:
        LOGS.mkdir(exist_ok=True)
        test = os.environ.get("PYTEST_CURRENT_TEST", "run").split("::")[-1].split(" ")[0]
        log = LOGS / f"{''.join(c if c.isalnum() else '_' for c in test)}.log"
        log.write_text(f"{arguments}\nexit code {code}\n\n{output}")
        raise AssertionError(f"exit code {code}, log in {log}:\n{output[-3000:]}")


CPU, HOST_CUDA = "tests.ranks", "tests.hostcuda.ranks"
"""What ranks are forked from: as this machine is, or with CUDA devices made of host memory."""


@functools.cache
def warm_process(module: str = CPU) -> subprocess.Popen[str]:
    """`tests.ranks` or its like, started once for all tests."""
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.kill)
    return process


def forked(
    *arguments: str,
    processes: int = 1,
    expect: int | None = 0,
    fault: str = "",
    machine: str = CPU,
    variables: dict[str, str] | None = None,
) -> tuple[int, str]:
    """`fastmix ARGUMENTS` in forked ranks (see tests/ranks.py); returns exit code and output.

    Args:
        arguments: without --nproc.
        processes: how many.
        expect: the exit code; another one fails the test, with the log kept. None for any.
        fault: see tests/faulty.py.
        machine: CPU or HOST_CUDA.
        variables: of the ranks' environment.
    """
    process = warm_process(machine)
    assert process.stdin is not None
    assert process.stdout is not None
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        request = {"arguments": arguments, "processes": processes, "log": log.name, "fault": fault}
        # One process without a launcher is one that takes all GPUs there are.
        devices = {"HOSTCUDA_DEVICES": str(processes)} if machine == HOST_CUDA else {}
        request["variables"] = devices | (variables or {})
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, "the process that forks the ranks has ended"
        output = Path(log.name).read_text(errors="replace")
    if expect is not None:
        require_code(expect, int(answer), arguments, output)
    return int(answer), output


def run_config(
    verb: str,
    settings: dict[str, Any],
    directory: Path,
    processes: int = 1,
    cold: bool = False,
    machine: str = CPU,
) -> Path:
    """Write `settings` to a file in `directory` and run a verb on it; returns the run folder.

    Args:
        verb: `search` or `train`.
        settings: the configuration, but for run_dir.
        directory: for the file and the run folder.
        processes: how many.
        cold: start the command as a user does, and not by forked ranks.
        machine: CPU or HOST_CUDA, for forked ranks.
    """
    directory.mkdir(parents=True, exist_ok=True)
    run_dir = directory / "run"
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(settings | {"run_dir": str(run_dir)}))
    if cold:
        fastmix(verb, str(path), "--nproc", str(processes))
    else:
        forked(verb, str(path), processes=processes, machine=machine)
    return run_dir


def column(run_dir: Path, file: str, key: str) -> np.ndarray:
    """One field of all lines of a run folder's JSONL file that have it."""
    rows = [row[key] for row in read_jsonl(run_dir / file) if key in row]
    return np.array(rows, np.float64)


def hide_gpus() -> None:
    """What runs in this process is compared with references on the CPU; what it launches takes the
    GPUs that were there. Called before torch is imported."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def clean_environment() -> dict[str, str]:
    """This process's environment without what a launcher above, or a command that ran in this
    process, would have set."""
    drop = {"RANK", "CI", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"}
    drop |= {"MASTER_PORT", "CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR"}
    kept = {name: text for name, text in os.environ.items() if name not in drop}
    if VISIBLE_GPUS is not None:
        kept["CUDA_VISIBLE_DEVICES"] = VISIBLE_GPUS
    return kept | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


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
