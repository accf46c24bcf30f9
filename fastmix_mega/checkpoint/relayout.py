"""Continue a checkpoint on another layout: DeepSpeed's universal checkpoints, plus our own part.

Rank 0 turns the checkpoint into DeepSpeed's universal form once (`step_N/universal`: every
parameter and moment whole, under its name), from which each process takes its part. Our own part
of the state is put together from all ranks' files and cut again. Fresh sums of floating-point
numbers are in another order afterwards, so that the run goes on equal within rounding, not bit for
bit.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastmix_mega.checkpoint.universal import only_data
from fastmix_mega.model.initialize import EMBEDDING_NAME, HEAD_NAME, shard, unshard
from fastmix_mega.parallel.layout import Layout

UNIVERSAL = "universal"
SUMS = ("sums", "target_sums")
"""Of a meter's state: what is added up over the processes."""


def place_of(rank: int, sizes: dict[str, int]) -> dict[str, int]:
    """Where a rank stands in a layout: megatron-core's order, tensor parallelism fastest."""
    place = {}
    for name in ("tensor", "context", "data", "pipeline"):
        rank, place[name] = divmod(rank, sizes[name])
    return place


def convert(directory: Path, tied: bool) -> None:
    """Write `directory/universal`; on one process. Does nothing if it is there."""
    final = directory / UNIVERSAL
    if final.exists():
        return
    partial = directory / f"{UNIVERSAL}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "fastmix_mega.checkpoint.universal", "--no_strict"),
        *("--input_folder", str(directory), "--output_folder", str(partial)),
        *("--num_extract_workers", "1", "--num_merge_workers", "1"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"DeepSpeed could not convert the checkpoint:\n{done.stdout[-3000:]}")
    zero = partial / "zero"
    if tied and not (zero / HEAD_NAME).exists():
        # Where the last stage is another process than the first, it holds a copy.
        shutil.copytree(zero / EMBEDDING_NAME, zero / HEAD_NAME)
    partial.rename(final)


def load_universal(deepspeed_engine: Any, directory: Path) -> None:
    """Weights and optimizer from `directory/universal`. Collective."""
    settings = deepspeed_engine._config
    settings.load_universal_checkpoint = True
    try:
        with only_data():
            deepspeed_engine.load_checkpoint(str(directory), tag=UNIVERSAL)
    finally:
        settings.load_universal_checkpoint = False
    # DeepSpeed leaves Adam's step counters on the CPU; the fused kernel wants them as fp32 beside
    # the parameters.
    for parameter, state in deepspeed_engine.optimizer.optimizer.state.items():
        if torch.is_tensor(state.get("step")):
            state["step"] = state["step"].to(parameter.device, torch.float32)


def merge_states(states: Sequence[dict[str, Any]], sizes: dict[str, int]) -> dict[str, Any]:
    """The whole of all ranks' own parts (see `Trainer._state`), in the order of ranks.

    Directions, which are as large as what is measured, stay in pieces: per direction, the parts of
    each parameter. `split_state` reads those that its process needs.
    """
    whole = dict(states[0])
    for name in ("losses", "objective"):
        whole[name] = sum(state[name] for state in states)
    if whole["loss_meter"] is not None:
        found = [state["loss_meter"]["sums"] for state in states]
        whole["loss_meter"] = whole["loss_meter"] | {"sums": sum(found)}
    if whole["meter"] is not None:
        meters = [state["meter"] for state in states]
        # Processes without a measured parameter hold an empty list.
        directions = [meter["directions"] for meter in meters]
        whole["meter"] = whole["meter"] | {
            **{name: sum(meter[name] for meter in meters) for name in SUMS},
            "directions": [
                _parts_of_directions([held[number] if held else {} for held in directions], sizes)
                for number in range(max(map(len, directions)))
            ],
        }
    return whole


def _parts_of_directions(
    directions: list[dict[str, Tensor]], sizes: dict[str, int]
) -> dict[str, list[Tensor]]:
    """By name, the parts of the tensor-parallel ranks, in their order."""
    parts: dict[str, list[Tensor]] = {}
    for rank, named in enumerate(directions):
        place = place_of(rank, sizes)
        if place["data"] == place["context"] == 0:
            for name, part in named.items():
                parts.setdefault(name, []).append(part)
    # The copies of a tied matrix have the same direction.
    if EMBEDDING_NAME in parts:
        parts.setdefault(HEAD_NAME, parts[EMBEDDING_NAME])
    return parts


def split_state(whole: dict[str, Any], layout: Layout, measured: Collection[str]) -> dict[str, Any]:
    """This process's own part; sums stay whole on one process, since they are only added up.

    Args:
        whole: of `merge_states`.
        layout: this process's place.
        measured: names under which this process may hold a direction; one parameter at a time is
            put together, and the process's shard of it goes to its device.
    """
    own = dict(whole)
    keep = layout.is_reporter and layout.data.rank == 0
    for name in ("losses", "objective"):
        own[name] = whole[name] if keep else torch.zeros_like(whole[name])
    losses, meter = whole["loss_meter"], whole["meter"]
    if losses is not None and not keep:
        own["loss_meter"] = losses | {"sums": torch.zeros_like(losses["sums"])}
    if meter is not None:
        enabled, left = meter["switch"]
        tensor = layout.tensor
        own["meter"] = {
            "directions": [
                {
                    name: shard(name, unshard(name, parts), tensor.rank, tensor.size).to(
                        layout.device, copy=True
                    )
                    for name, parts in named.items()
                    if name in measured
                }
                for named in meter["directions"]
            ],
            **{name: meter[name] if keep else torch.zeros_like(meter[name]) for name in SUMS},
            # A limit on scored micro-batches is the first data-parallel rank's.
            "switch": (enabled, left if layout.data.rank == 0 or left is None else 0),
        }
    if not layout.is_main:
        own["mixer"] = own["mixer"] | {"controller": None}
    return own
