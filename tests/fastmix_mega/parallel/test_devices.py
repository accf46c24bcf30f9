"""What is asked of the machine, on machines that are described and on this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.errors import UserError
from fastmix_mega.parallel import devices
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.training.guards.agreement import Agreement


@pytest.fixture
def broken_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two GPUs whose driver is too old for torch."""
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021\n"
    )
    monkeypatch.setattr(devices, "DRIVER_VERSION", version)
    monkeypatch.setattr(devices.visible_gpus, "__defaults__", (None, str(tmp_path)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def test_a_gpu_that_torch_cannot_use_is_no_cpu(broken_gpus: Path) -> None:
    with pytest.raises(UserError, match=r"2 GPU\(s\) are visible.*driver 470\.57\.02"):
        devices.require_usable_gpus()
    assert "cannot use them" in devices.problems(8)[0]
    with (
        pytest.raises(UserError, match="cannot use them"),
        parallel_layout.start(ParallelSection()),
    ):
        pass
    assert len(devices.visible_gpus({}, str(broken_gpus))) == 2


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_not_asked_for(
    broken_gpus: Path, hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices.visible_gpus(None, str(broken_gpus)) == []
    assert devices.problems(8) == []


def test_cores_are_those_that_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert devices.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert devices.usable_cores() == len(before)


def test_a_launcher_must_say_which_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(UserError, match="RANK is set but LOCAL_RANK is not"):
        devices.local_rank()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.local_rank() == 1


def test_settings_of_cuda_leave_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("CUDA_DEVICE_MAX_CONNECTIONS", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    for name in names:
        # Set first, so that what the test leaves behind is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    devices.prepare_cuda(tensor=1, context=1)
    assert "CUDA_DEVICE_MAX_CONNECTIONS" not in os.environ
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    devices.prepare_cuda(tensor=2, context=1)
    assert os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"
    monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", "8")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "backend:native")
    devices.prepare_cuda(tensor=2, context=2)
    assert os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] == "8"
    assert os.environ["PYTORCH_ALLOC_CONF"] == "backend:native"


def test_the_demo_takes_what_is_there() -> None:
    command = [sys.executable, "-m", "fastmix_mega.parallel.devices", "--at-most", "2"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"


def test_one_group_for_all_runs_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on CUDA makes no process group of its own: a swarm would run out of descriptors."""
    with parallel_layout.start(ParallelSection()) as layout:

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a new group")

        monkeypatch.setattr(dist, "new_group", refuse)
        world = replace(layout.world, size=2)
        Agreement(replace(layout, device=torch.device("cuda", 0), world=world))


@pytest.mark.parametrize("script", sorted(Path("slurm").glob("*.sbatch")), ids=lambda p: p.name)
def test_job_scripts_ask_for_cores(script: Path) -> None:
    """A task gets one core otherwise."""
    options = re.findall(r"^#SBATCH (.+)$", script.read_text(), re.MULTILINE)
    assert any(each.startswith(("--cpus-per-task=", "--exclusive")) for each in options)
