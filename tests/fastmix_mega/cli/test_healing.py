"""Which failures the launcher heals, and real runs in which processes die."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.checkpoint.store import checkpoint_steps
from fastmix_mega.cli.healing import Failure, Restarts
from fastmix_mega.errors import EXIT_DECIDED, EXIT_USER_MISTAKE
from fastmix_mega.files import read_jsonl
from fastmix_mega.training.place import RunPlace
from fastmix_mega.training.stop import EXIT_STOPPED
from tests.launch import clean_environment, column, run_config
from tests.tiny import tiny_settings

KILLED = Failure(1, "node1", -signal.SIGKILL, "SIGKILL", "", RunPlace("runs/a", 7, "checkpoint"))
HOUR = 3600.0
EVERY = {"checkpoint": {"every": 6}}
OWN_KEYS = {"healed": ["guards.hang_minutes=0.05"], "guard": ["guards.max_skipped=1"]}


def at_step(step: int) -> Failure:
    return replace(KILLED, place=replace(KILLED.place, step=step))


@pytest.mark.parametrize("code", [EXIT_USER_MISTAKE, EXIT_DECIDED, EXIT_STOPPED])
def test_what_ends_on_purpose_is_not_started_again(code: int) -> None:
    failure = replace(KILLED, code=code)
    assert Restarts(3).refusal(failure, asked=False, now=0.0) == "it ended on purpose"


@pytest.mark.parametrize("code", [-signal.SIGTERM, -signal.SIGINT, 130, 143])
def test_who_was_asked_to_end_is_not_started_again(code: int) -> None:
    failure = replace(KILLED, code=code)
    assert Restarts(3).refusal(failure, asked=False, now=0.0) == "it was asked to stop"
    assert Restarts(3).refusal(KILLED, asked=True, now=0.0) == "it was asked to stop"


def test_so_many_restarts_within_an_hour() -> None:
    restarts = Restarts(2)
    for step, now in ((1, 0.0), (2, 10.0)):
        assert restarts.refusal(at_step(step), asked=False, now=now) == ""
        restarts.count(at_step(step), now)
    assert "2 restart(s) within an hour" in restarts.refusal(at_step(3), asked=False, now=20.0)
    assert restarts.refusal(at_step(3), asked=False, now=HOUR + 1) == ""
    assert "--max-restarts is 0" in Restarts(0).refusal(KILLED, asked=False, now=0.0)


def test_the_same_step_fails_twice() -> None:
    restarts = Restarts(3)
    restarts.count(at_step(7), 0.0)
    restarts.count(at_step(9), 1.0)
    assert "failed there before" in restarts.refusal(at_step(7), asked=False, now=9 * HOUR)
    other_run = replace(KILLED, place=replace(KILLED.place, run_dir="runs/b"))
    assert restarts.refusal(other_run, asked=False, now=2.0) == ""


def configuration(settings: dict[str, Any], directory: Path) -> tuple[str, Path]:
    directory.mkdir()
    run_dir = directory / "run"
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(settings | EVERY | {"run_dir": str(run_dir)}))
    return str(path), run_dir


def python(*words: str, faults: str = "") -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env=clean_environment() | {"FAULT": faults},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def whole(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an uninterrupted run."""
    directory = tmp_path_factory.mktemp("whole")
    return run_config("search", tiny_settings(corpora, directory) | EVERY, directory, 2)


def require_equal(run_dir: Path, whole: Path) -> None:
    for file, key in (("metrics.jsonl", "loss"), ("history.jsonl", "mixture")):
        assert np.array_equal(column(run_dir, file, key), column(whole, file, key))
    assert (run_dir / "mixture.json").read_text() == (whole / "mixture.json").read_text()


@pytest.mark.distributed
def test_healed_given_up_and_left_alone(
    settings: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    """A killed rank, then a hung one: healed, with an equal result. The same step twice: given up.
    A mistake that only the run finds: not tried again. A guard that ends the run: neither."""
    requests, folders = [], {}
    for name, faults in {
        "healed": "kill-step:1:10;hang:0:5",
        "twice": "raise:1:10;raise:1:4",
        "mistake": "refuse:all:3",
        "guard": "nan:1:3",
    }.items():
        path, folders[name] = configuration(settings, tmp_path / name)
        words = ["search", path, *OWN_KEYS.get(name, [])]
        requests.append({"faults": faults, "arguments": words, "run_dir": str(folders[name])})
    (tmp_path / "requests.json").write_text(json.dumps(requests))
    _, shown = python("tests.launches", str(tmp_path / "requests.json"))
    healed, twice, mistake, guard = shown.split("exit code ")[:4]

    assert "rank 1 was killed by SIGKILL after step 9, in target gradient" in healed, shown
    assert "the run hangs after step 10" in healed
    assert "rank 0 is stuck" in healed
    assert "restarts after failures so far: 2" in healed
    require_equal(folders["healed"], whole)
    events = read_jsonl(folders["healed"] / "events.jsonl")
    kinds = [(event["kind"], event["step"], event.get("rank")) for event in events]
    assert kinds[0] == ("restarted", 9, 1)
    assert [kind for kind, *_ in kinds].count("restarted") == 2
    made = column(folders["healed"], "metrics.jsonl", "restarts")
    assert made.tolist() == [0] * 6 + [2] * 18

    code, twice = twice.split("\n", 1)
    assert code == "0", shown
    assert "rank 1 failed after step 9, in target gradient and training step: " in twice
    assert "restart 1" in twice
    assert "not started again: it has failed there before" in twice
    said = twice[twice.index("rank 1 on ") :]
    assert "RuntimeError: CUDA out of memory (a fault of this test)" in said
    assert "Traceback (most recent call last)" in said
    assert checkpoint_steps(folders["twice"] / "checkpoints") == [6]

    code, mistake = mistake.split("\n", 1)
    assert code == "1", shown
    assert "a mistake that one process alone has found" in mistake
    code, guard = guard.split("\n", 1)
    assert code == "2", shown
    assert "1 steps had a gradient that is not finite" in guard
    assert shown.split("exit code ")[4].strip() == "1"
    for each in (mistake, guard):
        assert "restart" not in each
        assert "Traceback" not in each


@pytest.mark.distributed
def test_torchrun_heals_too(settings: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """Its restarts are counted, and one that is stopped on purpose is not made."""
    path, run_dir = configuration(settings, tmp_path / "torchrun")
    words = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3")
    code, shown = python(*words, "-m", "tests.faulty", "search", path, faults="kill-step:0:10")
    assert code == 0, shown
    assert column(run_dir, "metrics.jsonl", "restarts")[-1] == 1
    require_equal(run_dir, whole)
