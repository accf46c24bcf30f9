"""The job scripts as they are shipped, on a real Slurm."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.launch import column, run_config
from tests.slurm.jobs import Jobs, config_file, wait_for_steps

pytestmark = pytest.mark.distributed


def processes_of(path: str) -> list[int]:
    """The run's launchers and ranks: they were started with this configuration."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if path.encode() in words and b"fastmix_mega" in words:
            found.append(int(directory.name))
    return found


def kill_a_rank(config: str) -> None:
    """One that a launcher has started: its parent is of the run, too."""
    found = processes_of(config)
    stats = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in found}
    os.kill([pid for pid in found if int(stats[pid][1]) in found][-1], signal.SIGKILL)


def wait_for_restart(run_dir: Path) -> None:
    end = time.monotonic() + 120
    while not column(run_dir, "metrics.jsonl", "restarts").any():
        assert time.monotonic() < end, "the run was not started again"
        time.sleep(0.1)


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a stopped process would get the signal first of all when it goes on."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("ShdPnd:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def run_into_time_limit(jobs: Jobs, job: str, config: str) -> None:
    """Hold the run's processes still until Slurm's signal before the time limit is there."""
    found = processes_of(config)
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    # At least 45 s from now: Slurm sends the signal 20 to 50 s before the end.
    limit = int(jobs.seconds(job) + 45) // 60 + 1
    jobs.call("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")
    end = time.monotonic() + 180
    while not any(is_pending(pid, signal.SIGUSR1) for pid in found):
        assert time.monotonic() < end, "no signal before the time limit"
        time.sleep(0.2)
    for pid in found:
        os.kill(pid, signal.SIGCONT)


def test_survives_preemption_a_lost_node_and_its_time_limit(
    settings: dict[str, Any], tmp_path: Path, jobs: Jobs
) -> None:
    """On two nodes: a killed rank is healed within the job; USR1 stops and requeues it; a node goes
    down and comes back; the time limit comes; each time it goes on, and the result is equal."""
    config, run_dir = config_file(settings, tmp_path), tmp_path / "run"
    options = ("--nodes=2", "--signal=B:USR1@20")
    job = jobs.submit("pretrain_proxy.sbatch", config, options=options)
    wait_for_steps(run_dir, 5)
    kill_a_rank(config)
    wait_for_restart(run_dir)
    jobs.call("scancel", "--batch", "--signal=USR1", job)
    jobs.wait_for(job, "PENDING")
    stopped = column(run_dir, "metrics.jsonl", "step")[-1]
    assert (run_dir / "checkpoints" / f"step_{stopped:.0f}" / "manifest.json").is_file()
    wait_for_steps(run_dir, int(stopped) + 60)
    jobs.call("scontrol", "update", "NodeName=node2", "State=DOWN", "Reason=test")
    # Refused where it has come back by itself.
    jobs.call("scontrol", "update", "NodeName=node2", "State=RESUME", check=False)
    jobs.wait_for(job, "PENDING")
    wait_for_steps(run_dir, len(column(run_dir, "metrics.jsonl", "step")) + 20)
    run_into_time_limit(jobs, job, config)
    jobs.wait_for(job, "PENDING")
    jobs.call("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    jobs.wait_for(job, "COMPLETED")
    log = jobs.log(job)
    assert "was killed by SIGKILL after step" in log
    assert column(run_dir, "metrics.jsonl", "restarts")[-1] == 1
    for number in (2, 3, 4):
        assert f"job {job}, start {number}" in log
    # 75, or what srun makes of the node that was still ending when the other had.
    assert log.count("stopped (exit code") == 2
    settings.pop("run_dir")
    whole = run_config("search", settings, tmp_path / "whole", processes=2)
    for file, key in (("metrics.jsonl", "loss"), ("history.jsonl", "mixture")):
        assert np.array_equal(column(run_dir, file, key), column(whole, file, key))


def test_a_sweep_then_the_large_run(settings: dict[str, Any], tmp_path: Path, jobs: Jobs) -> None:
    """An array over seeds; the large run trains on what one of them found."""
    config, run_dir = config_file(settings, tmp_path, steps=24), tmp_path / "run"
    output = f"--output={tmp_path}/%j.log"
    array = jobs.submit("pretrain_proxy.sbatch", config, options=(output, "--array=3,5"))
    for seed in (3, 5):
        jobs.wait_for(f"{array}_{seed}", "COMPLETED")
        resolved = yaml.safe_load((run_dir / f"seed_{seed}" / "config.yaml").read_text())
        assert resolved["seed"] == seed
        assert resolved["run_dir"] == str(run_dir / f"seed_{seed}")
    first, second = (
        column(run_dir / f"seed_{seed}", "history.jsonl", "mixture") for seed in (3, 5)
    )
    assert not np.array_equal(first, second)
    large = ("mixture=" + str(run_dir / "seed_3" / "mixture.json"), f"run_dir={tmp_path}/large")
    job = jobs.submit("pretrain_large.sbatch", config, *large, options=("--nodes=2",))
    jobs.wait_for(job, "COMPLETED")
    manifest = tmp_path / "large" / "checkpoints" / "step_12" / "manifest.json"
    assert manifest.is_file(), jobs.log(job)
    assert "start 1: fastmix train" in jobs.log(job)


def test_a_mistake_ends_the_job_with_its_message(
    settings: dict[str, Any], tmp_path: Path, jobs: Jobs
) -> None:
    settings["train"]["global_batch"] = 7
    job = jobs.submit("pretrain_proxy.sbatch", config_file(settings, tmp_path))
    jobs.wait_for(job, "FAILED")
    assert "train.global_batch (7) must be a multiple" in jobs.log(job)


def test_pipeline_from_raw_text_to_the_large_run(
    settings: dict[str, Any], tmp_path: Path, jobs: Jobs
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    words = Path(np.__file__).read_text().split()
    lines = []
    for number, entry in enumerate([*settings["sources"], *settings["targets"]]):
        draw = np.random.default_rng(number)
        rows = [json.dumps({"text": " ".join(draw.choice(words, 40))}) for _ in range(40)]
        for part in range(2):
            path = data / f"{entry['name']}{part}.jsonl"
            path.write_text("\n".join(rows[part::2]) + "\n")
        entry["prefix"] = str(data / entry["name"])
        lines.append(f"{entry['prefix']} {entry['prefix']}?.jsonl")
    corpora = tmp_path / "corpora.txt"
    corpora.write_text("\n".join(lines) + "\n")
    search = config_file(settings, tmp_path, steps=24)
    large = tmp_path / "large.yaml"
    large.write_text(yaml.safe_dump(settings | {"run_dir": str(tmp_path / "large")}))
    jobs.environment["FASTMIX_TASKS"] = "2"
    output = f"--output={tmp_path}/%j.log"
    said = jobs.call(
        "slurm/pipeline.sh", str(corpora), settings["tokenizer"], search, str(large), output
    )
    proxy, last = re.findall(r"search (\d+) -> large run (\d+)", said)[0]
    # The large run is last: a failure before it is told by the log of what failed.
    jobs.wait_for(proxy, "COMPLETED")
    jobs.wait_for(last, "COMPLETED")
    assert (tmp_path / "large" / "checkpoints" / "step_12" / "manifest.json").is_file()
    assert not list(data.glob("*.share-*"))
    used = yaml.safe_load((tmp_path / "large" / "config.yaml").read_text())["mixture"]
    assert used == str(tmp_path / "run" / "mixture.json")
