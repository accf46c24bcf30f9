"""`fastmix` with a fault at a known place: for torchrun, in tests only.

FAULT=kind:rank:count makes the count-th call of a place fail on one rank. Kinds: `kill-save`,
`kill-seal`, `kill-outer`, `kill-step`, `kill-start` (SIGKILL there), `nan` (that step's first loss
is not a number), `hang` (that step never ends), `drift` (the mixture differs).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from fastmix_mega import cli
from fastmix_mega.checkpoint import store
from fastmix_mega.engine.engine import TrainingEngine
from fastmix_mega.loop import TrainingLoop
from fastmix_mega.mixture.outer import OuterLoop
from fastmix_mega.mixture.policy import MixturePolicy


def kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(*_: Any) -> None:
    time.sleep(3600)


def drift(loop: TrainingLoop, *_: Any) -> None:
    assert loop.outer is not None
    policy = loop.outer.policy
    loop.outer.policy = MixturePolicy(policy.mixture[::-1].copy(), policy.exploration)


def before(owner: Any, name: str, count: int, fault: Callable[..., None]) -> None:
    """Do `fault` before the count-th call of a function."""
    original, calls = getattr(owner, name), [0]

    def wrapper(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == count:
            fault(*arguments)
        return original(*arguments, **named)

    setattr(owner, name, wrapper)


def poison(count: int) -> None:
    """The first loss of the count-th training step becomes NaN."""
    original, calls = TrainingEngine.train_step, [0]
    forward = TrainingEngine._forward

    def train_step(engine: Any, *arguments: Any) -> Any:
        calls[0] += 1
        engine.poisoned = calls[0] >= count
        return original(engine, *arguments)

    def poisoned_forward(engine: Any, model: Any, batch: Any) -> Any:
        found = forward(engine, model, batch)
        if getattr(engine, "poisoned", False):
            engine.poisoned = False
            found = found * found.new_tensor([float("nan")] + [1.0] * (len(found) - 1))
        return found

    TrainingEngine.train_step = train_step  # type: ignore[method-assign]
    TrainingEngine._forward = poisoned_forward  # type: ignore[method-assign]


def install(kind: str, count: int) -> None:
    if kind == "nan":
        poison(count)
        return
    owner, name, fault = {
        "kill-start": (TrainingLoop, "_resume", kill),
        "kill-step": (TrainingEngine, "train_step", kill),
        "kill-outer": (OuterLoop, "_broadcast", kill),
        "kill-save": (store, "write_tensors", kill),
        "kill-seal": (store, "record_file", kill),
        "hang": (TrainingEngine, "train_step", hang),
        "drift": (TrainingLoop, "_log_step", drift),
    }[kind]
    before(owner, name, count, fault)


if __name__ == "__main__":
    fault_kind, rank, number = os.environ["FAULT"].split(":")
    if os.environ["RANK"] == rank:
        install(fault_kind, int(number))
    sys.exit(cli.main())
