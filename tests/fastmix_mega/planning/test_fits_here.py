"""The plan's memory against machines that are described, and the command against this one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastmix_mega.configuration import parse_config
from fastmix_mega.parallel.machine_memory import MachineMemory, cgroup_limits, memory_here
from fastmix_mega.planning.check import Findings
from fastmix_mega.planning.fits_here import check_here, weigh

GPU = MachineMemory("GPU", 80 * 10**9, 80 * 10**9, 1)
RAM = MachineMemory("RAM", 8 * 10**9, 6 * 10**9, 2)


@pytest.fixture
def large(settings: dict[str, Any]) -> dict[str, Any]:
    """1B parameters: 16 bytes of state for each, shared by two processes."""
    settings["model"] = {"preset": "1B"}
    settings["precision"] = "bf16"
    settings["train"] |= {"global_batch": 4, "micro_batch": 1}
    return settings


def weighed(settings: dict[str, Any], memory: MachineMemory) -> Findings:
    found = Findings()
    weigh(parse_config(settings), 2, "search", memory, found)
    return found


def test_a_gpu_that_is_too_small(large: dict[str, Any]) -> None:
    assert "each process needs about" in weighed(large, GPU).facts[0]
    small = weighed(large, replace(GPU, size=8 * 10**9)).mistakes
    assert "of its GPU's 8 GB; lower train.micro_batch, set train.recompute" in small[0]
    need = next(size for size in range(8, 80) if not _refused(large, size))
    # What is left to CUDA is not the run's.
    assert "can be used; it may not fit" in weighed(large, _gpu(need)).warnings[0]


def _gpu(gigabytes: int) -> MachineMemory:
    return replace(GPU, size=gigabytes * 10**9)


def _refused(settings: dict[str, Any], gigabytes: int) -> list[str]:
    return weighed(settings, _gpu(gigabytes)).mistakes


def test_all_processes_share_the_ram(settings: dict[str, Any], large: dict[str, Any]) -> None:
    settings = settings | {"model": {"preset": "tiny"}, "precision": "fp32"}
    assert "2 process(es) need about" in weighed(settings, RAM).facts[0]
    busy = replace(RAM, available=10**8)
    assert "of which 100 MB are free now; it may not fit" in weighed(settings, busy).warnings[0]
    assert "of this machine's 8 GB of RAM; lower --nproc" in weighed(large, RAM).mistakes[0]


def test_the_check_of_this_machine(settings: dict[str, Any]) -> None:
    memory = memory_here(2)
    assert memory is not None
    assert 0 < memory.available <= memory.size
    found = check_here(parse_config(settings), 2, 1, "search")
    assert not found.mistakes
    assert any(text.startswith("memory: ") for text in found.facts + found.warnings)
    settings["model"] = {"preset": "70B"}
    found = check_here(parse_config(settings), 2, 1, "search")
    assert any(text.startswith("  memory: ") for text in found.mistakes)


@pytest.mark.parametrize("line", ["0::/job/step", "4:memory:/job/step"])
def test_the_smallest_limit_of_all_groups_above(tmp_path: Path, line: str) -> None:
    own = tmp_path / "own"
    own.write_text(f"2:cpu:/elsewhere\n{line}\n")
    top = tmp_path / line.split(":")[1]
    (top / "job/step").mkdir(parents=True)
    (top / "job/step/memory.max").write_text("max\n")
    (top / "job/memory.max").write_text("4000\n")
    (top / "memory.limit_in_bytes").write_text("5000\n")
    assert list(cgroup_limits(own, tmp_path)) == [4000, 5000]
    assert list(cgroup_limits(tmp_path / "none", tmp_path)) == []
