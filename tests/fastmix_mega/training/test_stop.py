"""Signals and the stop file, in real runs: checkpoint, exit code, equal result."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.checkpoint.store import checkpoint_steps
from fastmix_mega.training.stop import EXIT_STOPPED, StopRequest
from tests.launch import column, fastmix, run_config, start_fastmix

pytestmark = pytest.mark.distributed

STEPS = 150


@pytest.fixture
def config(settings: dict[str, Any], tmp_path: Path) -> str:
    settings["train"] |= {"steps": STEPS}
    held_out = {key: settings["targets"][1][key] for key in ("name", "prefix")}
    settings["evaluation"] = {"every": 10, "sequences": 8, "sets": [held_out]}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    while not (path.exists() and path.read_bytes().count(b"\n") >= count):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


EVERY_SIGNAL = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@pytest.mark.parametrize("wanted", EVERY_SIGNAL)
def test_each_signal_is_a_wish(tmp_path: Path, wanted: signal.Signals) -> None:
    request = StopRequest(str(tmp_path))
    before = signal.getsignal(wanted)
    with request.listening():
        assert not request.wanted
        os.kill(os.getpid(), wanted)
        assert request.reason == wanted.name
    assert signal.getsignal(wanted) == before


@pytest.mark.parametrize(
    ("processes", "wishes"), [(1, (signal.SIGTERM, None)), (2, (*EVERY_SIGNAL, None))]
)
def test_asked_to_stop_again_and_again(
    config: str, tmp_path: Path, processes: int, wishes: tuple[signal.Signals | None, ...]
) -> None:
    """Signals and the stop file (None), one after another; then on to the end."""
    run_dir, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    command = ("search", config, "--nproc", str(processes))
    for wish in wishes:
        lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        process = start_fastmix(*command)
        wait_for_lines(metrics, lines + 3, process)
        if wish is None:
            (run_dir / "stop").touch()
        else:
            process.send_signal(wish)
        shown, _ = process.communicate(timeout=120)
        assert process.returncode == EXIT_STOPPED, shown
        assert "start again to go on" in shown
        assert "Traceback" not in shown
        assert not (run_dir / "stop").exists()
        step = checkpoint_steps(run_dir / "checkpoints")[-1]
        assert 0 < step < STEPS
        assert f"stopped after step {step};" in shown
    fastmix(*command)
    import_settings = yaml.safe_load(Path(config).read_text())
    import_settings.pop("run_dir")
    whole = run_config("search", import_settings, tmp_path / "whole", processes)
    for file, key in (("metrics.jsonl", "loss"), ("history.jsonl", "mixture")):
        assert np.array_equal(column(run_dir, file, key), column(whole, file, key))


def test_a_second_signal_stops_at_once(config: str, tmp_path: Path) -> None:
    process = start_fastmix("search", config, "--nproc", "2", "train.steps=100000")
    wait_for_lines(tmp_path / "run" / "metrics.jsonl", 1, process)
    workers = children(process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    assert not any(map(alive, workers))


def test_workers_die_with_their_launcher(config: str, tmp_path: Path) -> None:
    process = start_fastmix("search", config, "--nproc", "2", "train.steps=100000")
    wait_for_lines(tmp_path / "run" / "metrics.jsonl", 1, process)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate(timeout=60)
    limit = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not any(map(alive, workers))
