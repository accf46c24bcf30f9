"""What the processes of one part of the examination do: they meet, look, and rank 0 writes JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.doctor import failures, groups, machine
from fastmix_mega.files import write_json
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout

PARTS = ("machine", "groups", "step", *failures.KINDS)


def work(part: str, config: Config | None, mode: str, output: Path) -> None:
    """Collective: every process of the part calls it.

    Args:
        part: one of PARTS.
        config: the user's; None for the groups of plain data parallelism.
        mode: `search` or `train`, for the step.
        output: where rank 0 writes a list with what each process found.
    """
    parallel = ParallelSection() if config is None or part == "machine" else config.parallel
    if part in failures.KINDS:
        parallel = ParallelSection()
    with parallel_layout.start(parallel) as layout:
        if part in failures.KINDS:
            failures.fail(layout, part)
        found = _look(part, config, mode, layout)
        everyone: list[Any] = [None] * layout.world_size
        dist.all_gather_object(everyone, found)
        if layout.is_main:
            write_json(output, everyone)


def _look(part: str, config: Config | None, mode: str, layout: Layout) -> dict[str, Any]:
    if part == "machine":
        return machine.facts(layout)
    if part == "groups":
        return groups.measure(layout)
    from fastmix_mega.doctor import step
    from fastmix_mega.planning.describe import planned_shape

    assert config is not None
    return step.measure(config, planned_shape(config), layout, mode)
