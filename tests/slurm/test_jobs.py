"""The job scripts as they are shipped, on a real Slurm."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.files import read_jsonl
from tests.launch import column, run_config
from tests.slurm.jobs import Jobs, config_file, parent_of, wait_for_steps

pytestmark = pytest.mark.distributed

COMMAND = """
if [ -n "${FASTMIX_CHECK_NODES:-}" ]; then echo "$FASTMIX_CHECK_NODES are too few"; exit 2; fi
echo "at work as $SLURM_NODEID of $SLURM_STEP_NUM_NODES"; exec sleep 600
"""
"""What a step runs."""


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
    os.kill([pid for pid in found if parent_of(pid) in found][-1], signal.SIGKILL)


def wait_for_restart(run_dir: Path, count: int) -> None:
    end = time.monotonic() + 600
    # No line is left where it goes on from the beginning.
    while max(column(run_dir, "metrics.jsonl", "restarts"), default=0) < count:
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


def test_survives_preemption_lost_nodes_and_its_time_limit(
    settings: dict[str, Any], tmp_path: Path, jobs: Jobs
) -> None:
    """On two nodes and a spare one: a killed rank is healed within the job; USR1 stops and requeues
    it; a lost node is replaced by the spare one; that is lost, which requeues it; the time limit
    comes; each time it goes on, and the result is equal."""
    config, run_dir = config_file(settings, tmp_path), tmp_path / "run"
    jobs.environment["FASTMIX_SPARE_NODES"] = "1"
    options = ("--nodes=3", "--no-kill", "--signal=B:USR1@20")
    job = jobs.submit("pretrain_proxy.sbatch", config, options=options)
    wait_for_steps(run_dir, 5)
    kill_a_rank(config)
    wait_for_restart(run_dir, 1)
    jobs.call("scancel", "--batch", "--signal=USR1", job)
    jobs.wait_for(job, "PENDING")
    stopped = column(run_dir, "metrics.jsonl", "step")[-1]
    assert (run_dir / "checkpoints" / f"step_{stopped:.0f}" / "manifest.json").is_file()
    wait_for_steps(run_dir, int(stopped) + 60)
    jobs.lose("node2")
    wait_for_restart(run_dir, 2)
    jobs.lose("node3")
    jobs.wait_for(job, "PENDING")
    jobs.bring_back()
    wait_for_steps(run_dir, len(column(run_dir, "metrics.jsonl", "step")) + 20)
    run_into_time_limit(jobs, job, config)
    jobs.wait_for(job, "PENDING")
    jobs.call("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    jobs.wait_for(job, "COMPLETED")
    log = jobs.log(job)
    assert "was killed by SIGKILL after step" in log
    assert "lost: node2; the run goes on with a spare node in its place" in log
    assert "lost: node2,node3; 1 node(s) are left, with which the run cannot go on" in log
    assert column(run_dir, "metrics.jsonl", "restarts")[-1] == 2
    for number in (2, 3, 4):
        assert f"job {job}, start {number}" in log
    # 75, or what srun makes of the node that was still ending when the other had.
    assert log.count("stopped (exit code") == 3
    settings.pop("run_dir")
    whole = run_config("search", settings, tmp_path / "whole", processes=2)
    for file, key in (("metrics.jsonl", "loss"), ("history.jsonl", "mixture")):
        assert np.array_equal(column(run_dir, file, key), column(whole, file, key))


def test_a_sweep_then_the_large_run(settings: dict[str, Any], tmp_path: Path, jobs: Jobs) -> None:
    """An array over seeds; the large run trains on what one of them found, and loses a node."""
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
    mixture, large = str(run_dir / "seed_3" / "mixture.json"), tmp_path / "large"
    own = {"mixture": mixture, "checkpoint": {"every": 50}, "run_dir": str(large)}
    settings["train"]["steps"] = 200
    (tmp_path / "large.yaml").write_text(yaml.safe_dump(settings | own))
    jobs.environment["FASTMIX_MIN_NODES"] = "1"
    options = ("--nodes=2", "--no-kill")
    job = jobs.submit("pretrain_large.sbatch", str(tmp_path / "large.yaml"), options=options)
    wait_for_steps(large, 60)
    jobs.lose("node2")
    jobs.wait_for(job, "COMPLETED")
    log = jobs.log(job)
    assert "start 1: fastmix train" in log
    assert "lost: node2; the run goes on with 1 of 2 nodes" in log
    assert "the run goes on at another layout after step 50: data 2 to 1" in log
    kinds = [each["kind"] for each in read_jsonl(large / "events.jsonl")]
    assert (kinds.count("restarted"), kinds.count("layout")) == (1, 1)
    assert column(large, "metrics.jsonl", "layout_changes")[[49, 50]].tolist() == [0, 1]
    assert "<dt>Changes of layout</dt>" in (large / "report.html").read_text()
    del own["run_dir"], settings["run_dir"]
    whole = run_config("train", settings | own, tmp_path / "whole", processes=2)
    here, there = (column(each, "metrics.jsonl", "loss") for each in (large, whole))
    assert here == pytest.approx(there, rel=1e-5)


def supervised(jobs: Jobs, nodes: int, *options: str, keep: str = "--no-kill") -> str:
    """A job whose steps are `COMMAND`; returns its number."""
    logs = f"{jobs.directory}/logs/$SLURM_JOB_ID"
    words = ["mkdir", "-p", f"{logs};", "exec", sys.executable, "-m", "fastmix_mega.cli.allocation"]
    words += ["--job", "$SLURM_JOB_ID", "--cpus", "1", "--logs", f"{logs}/start", *options]
    words += ["--", "bash", "-c", f"'{COMMAND}'"]
    own = (keep, "--requeue", f"--nodes={nodes}", f"--output={jobs.directory}/%j.log")
    return jobs.call("sbatch", "--parsable", *own, f"--wrap={' '.join(words)}").strip()


def test_too_few_nodes_are_left(jobs: Jobs) -> None:
    """The spare node is lost as well, which Slurm has not missed yet."""
    job = supervised(jobs, 3, "--nodes=2", "--min-nodes=1")
    jobs.wait_for_text(job, "at work as 1 of 2")
    jobs.lose("node3", told=False)
    jobs.lose("node2")
    jobs.wait_for(job, "FAILED")
    log = jobs.log(job)
    assert "start 1 in this job, on node1,node2" in log
    # srun may have its say between the two.
    assert "it cannot run on 1 node(s):" in log
    assert "1 are too few" in log
    assert "1 node(s) are left, with which the run cannot go on" in log
    assert "ExitCode=75:0" in jobs.call("scontrol", "show", "job", job)


def test_jobs_that_are_requeued(jobs: Jobs) -> None:
    """By Slurm, which may take all nodes away; by the watching step, when the job's script is gone
    with its node, which Slurm does not heal where it leaves the job its nodes."""
    for lost, keep in (("node2", "--no-kill=off"), ("node1", "--no-kill")):
        job = supervised(jobs, 2, "--nodes=2", "--min-nodes=1", keep=keep)
        jobs.wait_for_text(job, "at work as 1 of 2")
        jobs.wait_for_text(job, "watching the first node")
        jobs.lose(lost)
        jobs.wait_for(job, "PENDING")
        jobs.call("scancel", job)
        jobs.bring_back()


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
