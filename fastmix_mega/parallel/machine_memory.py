"""How much memory this machine gives to a run's processes: its GPUs', or its RAM."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OWN_CGROUP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")
MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class MachineMemory:
    """What a number of processes have to themselves."""

    kind: str
    """`GPU` or `RAM`."""
    size: int
    """Bytes of one GPU, or of the whole machine."""
    available: int
    """Bytes of it that nobody uses now; `size` where that is not known."""
    processes: int
    """That share it."""


def memory_here(processes: int) -> MachineMemory | None:
    """Of this machine, for so many processes on it; None where the system does not tell."""
    import torch

    if torch.cuda.is_available():
        size = torch.cuda.get_device_properties(0).total_memory
        return MachineMemory("GPU", size, size, 1)
    lines = _lines(MEMORY)
    read = {
        name: int(text.split()[0]) * 1024
        for name, _, text in (line.partition(":") for line in lines)
    }
    if "MemTotal" not in read:
        return None
    size = min([read["MemTotal"], *cgroup_limits()])
    return MachineMemory("RAM", size, min(size, read.get("MemAvailable", size)), processes)


def cgroup_limits(own: Path = OWN_CGROUP, folder: Path = CGROUPS) -> Iterator[int]:
    """Bytes that this process's control groups allow, as containers and batch systems set them.

    Args:
        own: says in which group this process is.
        folder: where the groups are.
    """
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = folder / controllers
            group = Path(os.path.normpath(f"{top}/{path}"))
            for place in (group, *group.parents):
                for name in ("memory.max", "memory.limit_in_bytes"):
                    yield from (int(text) for text in _lines(place / name) if text.isdigit())
                if place == top:
                    break


def _lines(path: Path) -> list[str]:
    """Of a file of the system's; none where it is not there."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
