"""What a run cost: proxy runs, wall time, and hours of the machines that it held."""

from __future__ import annotations

from collections.abc import Sequence

from fastmix_mega.report.read import LoggedStep, Run
from fastmix_mega.report.words import duration


def seconds(lines: Sequence[LoggedStep]) -> float:
    """Wall time of training with all that came between, from the logged speeds.

    Start-up is not in it, and neither is what an interrupted run did after its last checkpoint.
    """
    total, before = 0.0, 0
    for line in lines:
        if line.tokens_per_second:
            total += (line.tokens - before) / line.tokens_per_second
        before = line.tokens
    return total


def machine_hours(run: Run) -> tuple[str, str] | None:
    """Hours and how they come about, over all seeds of a pooled folder.

    None where a run tells no speed or no number of processes.
    """
    runs = [*run.seeds] or [run]
    held, wall = 0.0, 0.0
    devices, sizes = set(), set()
    for each in runs:
        search = each.mixture.search if each.mixture else {}
        size = search.get("world_size")
        if not isinstance(size, int) or not seconds(each.steps):
            return None
        wall += seconds(each.steps)
        held += seconds(each.steps) * size / 3600
        devices.add(str(search.get("device") or ""))
        sizes.add(size)
    device = devices.pop() if len(devices) == 1 else ""
    unit = {"cpu": "CPU-hours", "": "process-hours"}.get(device, "GPU-hours")
    shown = f"{held:.3g} {unit}"
    processes = " or ".join(str(size) for size in sorted(sizes))
    detail = f"{duration(wall)} on {processes} process{'' if sizes == {1} else 'es'}"
    if unit == "GPU-hours":
        detail += f", {device}"
    return shown, detail
