"""Has this machine the memory that the plan says a run needs? And all other checks with it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from fastmix_mega.config.schema import Config
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.methods.registry import method_of
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import devices
from fastmix_mega.parallel.machine_memory import MachineMemory, memory_here
from fastmix_mega.planning.activations import savings_of
from fastmix_mega.planning.check import Findings, check
from fastmix_mega.planning.layouts import Machine
from fastmix_mega.planning.memory import peak_memory
from fastmix_mega.planning.rules import problems
from fastmix_mega.quantities import in_bytes
from fastmix_mega.training.run import Verb

LIBRARIES = 300 * 2**20
"""Bytes of RAM that a process takes before its model is there."""
PRECISION = 0.1
"""By how much of itself a plan may be wrong: below that it refuses no run."""


def check_here(
    config: Config, local: int, machines: int, mode: Verb, allowed: Collection[str] = ()
) -> Findings:
    """As `check`, and whether this machine can do its part.

    Args:
        config: already valid by its schema.
        local: processes on this machine.
        machines: as many as this one, with as many processes each.
        mode: `search` or `train`.
        allowed: names of differences to the run in the folder that the user has said yes to.
    """
    found = check(config, local * machines, mode, allowed)
    lacking = devices.problems(local)
    found.mistakes += [f"  {text}" for text in lacking]
    if not lacking:
        weigh(config, local * machines, mode, memory_here(local), found)
    return found


def weigh(
    config: Config, processes: int, mode: Verb, memory: MachineMemory | None, found: Findings
) -> None:
    """Compare what the plan says of the fullest process with what there is.

    Args:
        config: already valid by its schema; nothing is said of a layout that cannot run.
        processes: of the whole run.
        mode: `search` or `train`.
        memory: of this machine; None if it is not known.
        found: takes the result.
    """
    method = method_of(config, mode)
    if memory is None or not method.trains:
        return
    config = method.config
    trains_as = mode if method.own_run else "train"
    shape = None
    with suppress(UserError):
        shape = resolve_shape(config.model, Tokenizer(config.tokenizer).vocab_size)
    if shape is None or problems(config.parallel, config, shape, processes, trains_as):
        return  # `check` tells.
    on_gpu = memory.kind == "GPU"
    savings = savings_of(config, cuda=on_gpu)
    peak = peak_memory(config, shape, config.parallel, processes, trains_as, savings).total
    sure, likely = memory.processes * peak * (1 - PRECISION), memory.processes * peak
    usable = float(memory.available)
    if on_gpu:
        usable = Machine(memory.size).usable
        text = f"each process needs about {in_bytes(peak)} of its GPU's {in_bytes(memory.size)}"
    else:
        likely += memory.processes * LIBRARIES
        text = (
            f"{memory.processes} process(es) need about {in_bytes(likely)} of this machine's "
            f"{in_bytes(memory.size)} of RAM"
        )
    if sure > memory.size:
        found.mistakes.append(f"  memory: {text}; {_remedy(on_gpu)}")
    elif likely > usable:
        left = "can be used" if on_gpu else "are free now"
        found.warnings.append(
            f"memory: {text}, of which {in_bytes(usable)} {left}; it may not fit: {_remedy(on_gpu)}"
        )
    else:
        found.facts.append(f"memory: {text}")


def _remedy(on_gpu: bool) -> str:
    if on_gpu:
        return (
            "lower train.micro_batch, set train.recompute=full, or split the model "
            "(`fastmix plan` lists what fits)"
        )
    return "lower --nproc or train.micro_batch, or take a smaller model"
