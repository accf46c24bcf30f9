"""`fastmix` with a fault at a known place: for torchrun, in tests only.

FAULT=kind:rank:count makes the count-th call of a place fail on one rank, or on all with the rank
`all`; several faults are separated by commas, and those of the starts of the processes that a
launcher starts again by semicolons. Kinds: `kill-save`, `kill-seal`, `kill-outer`,
`kill-step`, `kill-start` (SIGKILL there), `nan` (from that step on the first loss is not a number),
`raise` (an unexpected error in that step), `refuse` (a user's mistake in that step),
`spike` (that step's losses are tenfold), `hang` (that step never ends), `drift` (the mixture
differs), `collapse` (the controller gives all weight to one source), `doubt` (the scores of that
outer step are mostly noise), `destroy` (the weights are no numbers when the target is measured),
`full-save` and `full-results` (from that checkpoint, or from the results, on the disk is full),
`memory` (from that step on the process gets no more memory, which it asks for), `slow-disk` (from
that checkpoint on every write takes long), `clock-forward` and `clock-back` (from that step on
Python's clock is hours off).
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import deepspeed
import torch

from fastmix_mega.checkpoint import store
from fastmix_mega.cli import main as cli
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.exponentiated_gradient import ExponentiatedGradient
from fastmix_mega.parallel.attempts import attempt
from fastmix_mega.training.engine.engine import TrainingEngine
from fastmix_mega.training.outer_loop import OuterLoop
from fastmix_mega.training.trainer import Trainer

ROOM = 20_000
"""Bytes of a file on the full disk: a log fits, a checkpoint and a report do not."""

SPARE = 1 << 30
"""Bytes that a process may still take when its memory is exhausted."""
LATE_SECONDS = 0.1
"""That a write to the slow disk takes longer."""


def kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(*_: Any) -> None:
    time.sleep(3600)


def raise_error(*_: Any) -> None:
    raise RuntimeError("CUDA out of memory (a fault of this test)")


def refuse(*_: Any) -> None:
    raise UserError("a mistake that one process alone has found")


def fill_disk(*_: Any) -> None:
    """No file can be longer than that any more."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))


def exhaust_memory(*_: Any) -> None:
    """As a batch that is too large does under `ulimit -v`: the allocation fails."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, hard))
    torch.empty(2 * SPARE, dtype=torch.uint8)


def slow_disk(*_: Any) -> None:
    for owner, name in ((os, "fsync"), (os, "write"), (store, "write_tensors")):
        setattr(owner, name, _late(getattr(owner, name)))


def _late(original: Callable[..., Any]) -> Callable[..., Any]:
    def late(*arguments: Any) -> Any:
        time.sleep(LATE_SECONDS)
        return original(*arguments)

    return late


def shift_clock(hours: float) -> Callable[..., None]:
    original = time.time

    def shift(*_: Any) -> None:
        time.time = lambda: original() + 3600 * hours

    return shift


def drift(trainer: Trainer, *_: Any) -> None:
    policy = trainer.mixer.policy
    trainer.mixer.policy = policy.moved_to(policy.mixture[::-1].copy())


def before(owner: Any, name: str, count: int, fault: Callable[..., None]) -> None:
    """Do `fault` before the count-th call of a function."""
    original, calls = getattr(owner, name), [0]

    def wrapper(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == count:
            fault(*arguments)
        return original(*arguments, **named)

    setattr(owner, name, wrapper)


def collapse(loop: Any, *_: Any) -> None:
    if loop.controller is not None:
        loop.controller._logits[0] += 20


def doubt(_: Any, sums: Any) -> None:
    sums[1] *= 1e6


def destroy(engine: Any, *_: Any) -> None:
    for parameter in engine.deepspeed.module.parameters():
        parameter.data.fill_(float("nan"))


def spoil_losses(first: int, last: int, factor: float, sequences: int | None) -> None:
    """The first sequences' losses (None: all) of some training steps are multiplied."""
    original, calls = TrainingEngine.train_step, [0]
    forward = TrainingEngine._token_losses

    def train_step(engine: Any, *arguments: Any) -> Any:
        calls[0] += 1
        engine.left = len(arguments[1]) if first <= calls[0] <= last else 0
        if sequences is not None:
            engine.left = min(engine.left, 1)
        return original(engine, *arguments)

    def spoiled_forward(engine: Any, model: Any, batch: Any) -> Any:
        found = forward(engine, model, batch)
        if getattr(engine, "left", 0):
            engine.left -= 1
            factors = [
                factor if row < (sequences or len(found)) else 1.0 for row in range(len(found))
            ]
            found = found * found.new_tensor(factors)[:, None]  # [b, s]
        return found

    TrainingEngine.train_step = train_step
    TrainingEngine._token_losses = spoiled_forward


def install(kind: str, count: int) -> None:
    if kind == "nan":
        spoil_losses(count, 10**9, float("nan"), 1)
        return
    if kind == "spike":
        spoil_losses(count, count, 10.0, None)
        return
    owner, name, fault = {
        "kill-start": (Trainer, "_resume", kill),
        "kill-step": (TrainingEngine, "train_step", kill),
        "kill-outer": (OuterLoop, "_broadcast", kill),
        "kill-save": (store, "write_tensors", kill),
        "kill-seal": (store.Checkpoints, "_seal", kill),
        "full-save": (store.Checkpoints, "save", fill_disk),
        "full-results": (Trainer, "finish", fill_disk),
        "slow-disk": (store.Checkpoints, "save", slow_disk),
        "memory": (TrainingEngine, "train_step", exhaust_memory),
        "clock-forward": (TrainingEngine, "train_step", shift_clock(5)),
        "clock-back": (TrainingEngine, "train_step", shift_clock(-5)),
        "hang": (TrainingEngine, "train_step", hang),
        "probe": (deepspeed.ops, "_probe_compatible_ops", raise_error),
        "raise": (TrainingEngine, "train_step", raise_error),
        "refuse": (TrainingEngine, "train_step", refuse),
        "drift": (Trainer, "_log_step", drift),
        "collapse": (OuterLoop, "_broadcast", collapse),
        "destroy": (TrainingEngine, "measure_target", destroy),
        "doubt": (ExponentiatedGradient, "update", doubt),
    }[kind]
    before(owner, name, count, fault)


def install_all(faults: str, own_rank: str) -> None:
    """Install those of FAULT's faults that are this rank's."""
    for each in faults.split(","):
        kind, rank, count = each.split(":")
        if rank in (own_rank, "all"):
            install(kind, int(count))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command, with the faults that FAULT has for this start of the processes."""
    faults = os.environ["FAULT"].split(";")
    if attempt() < len(faults) and faults[attempt()]:
        install_all(faults[attempt()], os.environ["RANK"])
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
