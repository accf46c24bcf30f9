"""Nodes are lost under running jobs, on a real Slurm with three nodes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.files import read_jsonl
from tests.launch import column, run_config
from tests.slurm.jobs import Jobs, config_file, wait_for_steps

pytestmark = pytest.mark.distributed

STEPS = 200
COMMAND = """
if [ -n "${FASTMIX_CHECK_NODES:-}" ]; then echo "$FASTMIX_CHECK_NODES are too few"; exit 2; fi
echo "at work as $SLURM_NODEID of $SLURM_STEP_NUM_NODES"; exec sleep 600
"""
"""What a step runs."""


@pytest.fixture(autouse=True)
def _all_nodes(jobs: Jobs) -> Iterator[None]:
    yield
    jobs.call("scancel", "--user=root")
    jobs.bring_back()


def supervised(jobs: Jobs, nodes: int, *options: str) -> str:
    """A job whose steps are `COMMAND`; returns its number."""
    logs = f"{jobs.directory}/logs/$SLURM_JOB_ID"
    words = ["mkdir", "-p", f"{logs};", "exec", sys.executable, "-m", "fastmix_mega.cli.allocation"]
    words += ["--job", "$SLURM_JOB_ID", "--cpus", "1", "--logs", f"{logs}/start", *options]
    words += ["--", "bash", "-c", f"'{COMMAND}'"]
    own = ("--no-kill", "--requeue", f"--nodes={nodes}", f"--output={jobs.directory}/%j.log")
    return jobs.call("sbatch", "--parsable", *own, f"--wrap={' '.join(words)}").strip()


def wait_for_text(jobs: Jobs, job: str, text: str) -> None:
    end = time.monotonic() + 120
    while text not in (said := jobs.log(job)):
        assert time.monotonic() < end, said
        time.sleep(0.1)


def test_too_few_are_left(jobs: Jobs) -> None:
    """The spare node is lost as well, which Slurm has not missed yet."""
    job = supervised(jobs, 3, "--nodes=2", "--min-nodes=1")
    wait_for_text(jobs, job, "at work as 1 of 2")
    jobs.lose("node3", told=False)
    jobs.lose("node2")
    jobs.wait_for(job, "FAILED")
    log = jobs.log(job)
    assert "start 1 in this job, on node1,node2" in log
    assert "it cannot run on 1 node(s):\n1 are too few" in log
    assert "1 node(s) are left, with which the run cannot go on" in log
    assert "ExitCode=75:0" in jobs.call("scontrol", "show", "job", job)


def test_the_node_of_the_jobs_script(jobs: Jobs) -> None:
    """Slurm itself would leave the job without its script."""
    job = supervised(jobs, 2, "--nodes=2", "--min-nodes=1")
    wait_for_text(jobs, job, "at work as 1 of 2")
    wait_for_text(jobs, job, "watching the first node")
    jobs.lose("node1")
    jobs.wait_for(job, "PENDING")


def test_a_search_goes_on_with_a_spare_node(
    settings: dict[str, Any], tmp_path: Path, jobs: Jobs
) -> None:
    """At the same layout, so that the result is equal bit for bit."""
    config, run_dir = config_file(settings, tmp_path, STEPS), tmp_path / "run"
    jobs.environment["FASTMIX_SPARE_NODES"] = "1"
    job = jobs.submit("pretrain_proxy.sbatch", config, options=("--nodes=3", "--no-kill"))
    wait_for_steps(run_dir, 60)
    jobs.lose("node2")
    jobs.wait_for(job, "COMPLETED")
    log = jobs.log(job)
    assert "lost: node2; the run goes on with a spare node in its place" in log
    assert "restarts after failures so far: 1" in log
    settings.pop("run_dir")
    whole = run_config("search", settings, tmp_path / "whole", processes=2)
    for file, key in (("metrics.jsonl", "loss"), ("history.jsonl", "mixture")):
        assert np.array_equal(column(run_dir, file, key), column(whole, file, key))
    assert (run_dir / "mixture.json").read_text() == (whole / "mixture.json").read_text()
    events = [each for each in read_jsonl(run_dir / "events.jsonl") if each["kind"] == "restarted"]
    assert [(each["step"], each["cause"]) for each in events] == [(50, "lost: node2")]


def test_a_training_goes_on_with_fewer_nodes(
    settings: dict[str, Any], tmp_path: Path, jobs: Jobs
) -> None:
    settings["mixture"] = "uniform"
    config, run_dir = config_file(settings, tmp_path, STEPS), tmp_path / "run"
    jobs.environment["FASTMIX_MIN_NODES"] = "1"
    job = jobs.submit("pretrain_large.sbatch", config, options=("--nodes=2", "--no-kill"))
    wait_for_steps(run_dir, 60)
    jobs.lose("node2")
    jobs.wait_for(job, "COMPLETED")
    log = jobs.log(job)
    assert "lost: node2; the run goes on with 1 of 2 nodes" in log
    assert "the run goes on at another layout after step 50: data 2 to 1" in log
    kinds = [each["kind"] for each in read_jsonl(run_dir / "events.jsonl")]
    assert (kinds.count("restarted"), kinds.count("layout")) == (1, 1)
    assert column(run_dir, "metrics.jsonl", "layout_changes")[[49, 50]].tolist() == [0, 1]
    assert "<dt>Changes of layout</dt>" in (run_dir / "report.html").read_text()
    settings.pop("run_dir")
    whole = run_config("train", settings, tmp_path / "whole", processes=2)
    here, there = column(run_dir, "metrics.jsonl", "loss"), column(whole, "metrics.jsonl", "loss")
    assert here == pytest.approx(there, rel=1e-5)
