"""Can TransformerEngine be imported here? Tried in a process of its own, once a machine.

A package that is installed may still fail in its own loader (libraries of another CUDA, its part
for torch not built), with errors that megatron-core does not expect from `import`: then nothing of
megatron-core could be imported either. Such a package is hidden from this process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

PACKAGE = "transformer_engine"
VARIABLE = "FASTMIX_TRANSFORMER_ENGINE"
"""Environment variable: the outcome, for the processes that this one starts."""
TRIAL = f"import {PACKAGE}.pytorch"
LIMIT_SECONDS = 180


@dataclass(frozen=True)
class Trial:
    """What came of it."""

    version: str | None
    """None where the package is not installed, or cannot be imported."""
    error: str = ""
    """Why an installed package cannot be imported."""


def try_transformer_engine() -> Trial:
    """The outcome, from the environment where a parent process has tried already."""
    if VARIABLE in os.environ:
        return Trial(**json.loads(os.environ[VARIABLE]))
    found = _try()
    os.environ[VARIABLE] = json.dumps(asdict(found))
    return found


def hide_if_broken() -> None:
    """Let a package that cannot be imported look as if it were not installed, in this process."""
    if PACKAGE not in sys.modules and try_transformer_engine().error:
        sys.modules[PACKAGE] = None  # type: ignore[assignment]


def _try() -> Trial:
    if PACKAGE in sys.modules and sys.modules[PACKAGE] is None:
        return Trial(None)
    if find_spec(PACKAGE) is None:
        return Trial(None)
    command = [sys.executable, "-c", TRIAL]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_SECONDS,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return Trial(None, f"its import takes longer than {LIMIT_SECONDS} s")
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        return Trial(None, lines[-1][:300] if lines else f"exit code {done.returncode}")
    try:
        return Trial(version("transformer-engine"))
    except PackageNotFoundError:
        return Trial("0")
