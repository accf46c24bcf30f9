"""The watchdog's thread in real processes, without a training run."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from torch._C._distributed_c10d import PrefixStore, TCPStore

from fastmix_mega.files import read_jsonl
from fastmix_mega.training.guards.watchdog import Member, Watchdog, _waits
from tests.launch import clean_environment

pytestmark = pytest.mark.distributed


def test_a_stopped_process_is_named_by_the_others(tmp_path: Path) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    command = [sys.executable, "-m", "tests.watched"]
    watched = [
        subprocess.Popen(
            [*command, str(rank), str(store.port), str(tmp_path)],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in watched:
            assert process.stdout is not None
            assert process.stdout.readline() == "beats no more\n"
        published = PrefixStore("fastmix-watchdog-0", store)
        while json.loads(published.get("1"))["step"] < 7:
            time.sleep(0.1)
        os.kill(watched[1].pid, signal.SIGSTOP)
        shown, _ = watched[0].communicate(timeout=60)
    finally:
        for process in watched:
            process.kill()
            process.wait(timeout=60)
    assert watched[0].returncode == 1
    assert "rank 1 is stuck (the process gives no sign of life" in shown
    assert "rank 1: step 7, training" in shown
    (event,) = read_jsonl(tmp_path / "events.jsonl")
    assert event["ranks"] == [1]


def test_a_hang_is_told_whatever_the_disk_takes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Else the run would hang on."""
    dog = Watchdog(Member(0, 2, lockstep=True), 0.4, str(tmp_path / "missing"))
    dog._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    dog._publish()
    assert dog._is_hung(beats=0)
    faulthandler.cancel_dump_traceback_later()
    assert "rank 1 is stuck" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("file", "waits"),
    [
        ("/site-packages/torch/cuda/__init__.py", True),
        ("/site-packages/torch/distributed/distributed_c10d.py", True),
        ("/home/fastmix_mega/training/engine/engine.py", False),
    ],
)
def test_a_process_that_waits_for_its_gpu_waits_for_others(file: str, waits: bool) -> None:
    """It waits for a collective on the GPU, in most cases: the one that is stuck is another."""
    found: dict[str, Any] = {}
    exec(compile("import sys\nframe = sys._getframe()", file, "exec"), found)
    assert _waits(found["frame"]) == waits
