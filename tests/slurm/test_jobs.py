"""The job scripts as they are shipped, on a real Slurm with two nodes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.launch import clean_environment, column, run_config

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.distributed


class Jobs:
    """Slurm's commands, and what a job's log says."""

    def __init__(self, slurm: dict[str, str], directory: Path) -> None:
        self.directory = directory
        site = directory / "site.sh"
        site.write_text(
            "load_modules() { :; }\n"
            f"export FASTMIX_VENV={sys.prefix} FASTMIX_LOGS={directory}/logs\nCONTAINER=()\n"
        )
        self.environment = clean_environment() | slurm | {"FASTMIX_SITE": str(site)}
        for name in ("RANK", "WORLD_SIZE"):
            self.environment.pop(name, None)

    def call(self, *command: str) -> str:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    def submit(self, script: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
        output = f"--output={self.directory}/%j.log"
        return self.call(
            "sbatch", "--parsable", output, *options, f"slurm/{script}", *arguments
        ).strip()

    def wait_for(self, job: str, *states: str) -> None:
        while (state := self.state(job)) not in states:
            bad = ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "COMPLETED")
            assert state not in bad, f"{state}: {self.log(job)}"
            time.sleep(0.3)

    def state(self, job: str) -> str:
        fields = self.call("scontrol", "--oneliner", "show", "job", job).split()
        return dict(field.partition("=")[::2] for field in fields)["JobState"]

    def log(self, job: str) -> str:
        path = self.directory / f"{job}.log"
        logs = [path, *sorted((self.directory / "logs" / job).glob("*"))]
        return "\n".join(each.read_text() for each in logs if each.exists())


@pytest.fixture
def jobs(slurm: dict[str, str], tmp_path: Path) -> Jobs:
    return Jobs(slurm, tmp_path)


def config_file(settings: dict[str, Any], tmp_path: Path) -> str:
    settings["train"]["steps"] = 300
    settings["checkpoint"] = {"every": 50}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def wait_for_steps(run_dir: Path, count: int) -> None:
    metrics = run_dir / "metrics.jsonl"
    limit = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= count):
        assert time.monotonic() < limit, "the job does not train"
        time.sleep(0.1)


def test_preempted_then_node_lost_then_complete(
    settings: dict[str, Any], tmp_path: Path, jobs: Jobs
) -> None:
    """Two nodes; USR1 stops and requeues it; a node goes down and comes back; an equal result."""
    config, run_dir = config_file(settings, tmp_path), tmp_path / "run"
    job = jobs.submit("pretrain_proxy.sbatch", config, options=("--nodes=2",))
    wait_for_steps(run_dir, 5)
    jobs.call("scancel", "--batch", "--signal=USR1", job)
    jobs.wait_for(job, "PENDING")
    stopped = column(run_dir, "metrics.jsonl", "step")[-1]
    assert (run_dir / "checkpoints" / f"step_{stopped:.0f}" / "manifest.json").is_file()
    wait_for_steps(run_dir, int(stopped) + 60)
    jobs.call("scontrol", "update", "NodeName=node2", "State=DOWN", "Reason=test")
    jobs.call("scontrol", "update", "NodeName=node2", "State=RESUME")
    jobs.wait_for(job, "COMPLETED")
    assert f"job {job}, start 2" in jobs.log(job)
    assert f"job {job}, start 3" in jobs.log(job)
    settings.pop("run_dir")
    whole = run_config("search", settings, tmp_path / "whole", processes=2)
    for file, key in (("metrics.jsonl", "loss"), ("history.jsonl", "mixture")):
        assert np.array_equal(column(run_dir, file, key), column(whole, file, key))


def test_a_mistake_ends_the_job_with_its_message(
    settings: dict[str, Any], tmp_path: Path, jobs: Jobs
) -> None:
    settings["train"]["global_batch"] = 7
    job = jobs.submit("pretrain_proxy.sbatch", config_file(settings, tmp_path))
    jobs.wait_for(job, "FAILED")
    assert "train.global_batch (7) must be a multiple" in jobs.log(job)
