"""The product's searches and trainings in processes forked from this one.

Importing the libraries takes longer than a small run, and a fork has them already.
"""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from benchmarks.timing import one_thread
from fastmix_mega.config.schema import Config
from fastmix_mega.configuration import load_config
from fastmix_mega.methods.registry import method_of


class Configured(Protocol):
    """Something with a configuration and its file."""

    @property
    def config_path(self) -> Path: ...
    @property
    def config(self) -> Config: ...


def warm_up() -> None:
    """Import what every run needs, on one thread, so that forks are safe and start at once."""
    one_thread()
    for name in (
        "fastmix_mega.training.trainer",
        "fastmix_mega.report.build",
        "deepspeed",
        "megatron.core",
    ):
        importlib.import_module(name)


def run_forked(
    family: Configured, mode: Literal["search", "train"], seed: int, overrides: Sequence[str]
) -> tuple[Path, float]:
    """Run it to its end, in a folder below the configuration's `run_dir`.

    Returns:
        The run folder, and CPU seconds.

    Raises:
        RuntimeError: if it fails; with the end of its log.
    """
    run_dir = Path(family.config.run_dir) / f"{mode}-{os.getpid()}"
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)
    log = run_dir / "output.log"
    words = [str(family.config_path), f"run_dir={run_dir}", f"seed={seed}", *overrides]
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _child(words, mode, log)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"a {mode} failed:\n{log.read_text()[-3000:]}")
    return run_dir, usage.ru_utime + usage.ru_stime


def shortened(value: Any) -> Any:
    """Every number of plain data to five digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return [shortened(each) for each in value]
    if isinstance(value, dict):
        return {key: shortened(each) for key, each in value.items()}
    return value


def _child(words: list[str], mode: Literal["search", "train"], log: Path) -> None:
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        config = load_config(words[0], words[1:])
        method_of(config, mode).search()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
