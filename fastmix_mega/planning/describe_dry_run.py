"""What `fastmix plan --dry-run` prints: what a rank needed, beside what the plan says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastmix_mega.config.schema import Config
from fastmix_mega.errors import RunFailed, UserError
from fastmix_mega.planning.activations import savings_of
from fastmix_mega.planning.describe import planned_shape
from fastmix_mega.planning.dry_run import STEPS, DryRun, dry_runs, method_that_runs, ranks_to_run
from fastmix_mega.planning.layouts import Machine
from fastmix_mega.planning.memory import Memory, stage_memory
from fastmix_mega.planning.rules import as_yaml, problems


def planned(config: Config, gpus: int, mode: str, stage: int) -> Memory:
    """What the plan says of a process of this pipeline stage."""
    method, mode = method_that_runs(config, mode)
    config = method.config
    shape, savings = planned_shape(config), savings_of(config, cuda=True)
    return stage_memory(config, shape, config.parallel, gpus, mode, savings, stage)


def describe_dry_runs(
    config: Config, gpus: int, mode: str, machine: Machine, rank: int | None = None
) -> str:
    """Run `rank`, or those that need most, and tell.

    Raises:
        UserError: if the layout cannot run on so many GPUs.
        RunFailed: if a rank fails, or needs more than a GPU has.
    """
    mistakes = problems(config.parallel, config, planned_shape(config), gpus, mode)
    if mistakes:
        raise UserError("\n".join([f"the layout cannot run on {gpus} GPUs:", *mistakes]))
    ranks = ranks_to_run(config, gpus) if rank is None else [rank]
    lines = [f"dry run: {mode} on {gpus} GPUs, {as_yaml(config.parallel)}"]
    runs = dry_runs(config, gpus, mode, ranks)
    for run in runs:
        lines += _lines(run, planned(config, gpus, mode, run.place["pipeline"]))
    highest = max(run.total for run in runs)
    text = "\n".join(lines)
    if highest > machine.usable:
        raise RunFailed(
            f"{text}\nDOES NOT FIT in {machine.gpu_memory / 1e9:.0f} GB "
            f"({machine.usable / 1e9:.0f} GB usable)"
        )
    return (
        f"{text}\nruns, and fits in {machine.gpu_memory / 1e9:.0f} GB ({machine.usable / 1e9:.0f} "
        "GB usable); not seen: kernels' own workspaces, CUDA's context, NCCL, fragmentation"
    )


def _lines(run: DryRun, plan: Memory) -> Sequence[str]:
    place = ", ".join(f"{name} {number}" for name, number in run.place.items())
    return (
        f"rank {run.rank} ({place}): {STEPS} steps of {run.micro_batches} micro-batches",
        f"  GB at the peak: {run.total / 1e9:.2f} = {_sum(run.parts)}",
        f"  plan says:      {plan.total / 1e9:.2f} = {_sum(vars(plan))} "
        f"({plan.total / run.total - 1:+.1%})",
    )


def _sum(parts: Mapping[str, float]) -> str:
    shown = [f"{name} {size / 1e9:.2f}" for name, size in parts.items() if size >= 5e6]
    return " + ".join(shown)
