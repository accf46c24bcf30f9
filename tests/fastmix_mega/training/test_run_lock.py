"""The lock of a run folder: refused while its holder lives, taken over when it is gone."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.errors import UserError
from fastmix_mega.locking import Holder, Pace, read_holder, this_process
from fastmix_mega.training.run_lock import FILE, run_lock
from tests.launch import clean_environment, fastmix, start_fastmix

FAST = Pace(beat=0.05, patience=0.5, settle=0.02)
HOLD = (
    "import sys, time\n"
    "from fastmix_mega.locking import Pace\n"
    "from fastmix_mega.training.run_lock import run_lock\n"
    "with run_lock(sys.argv[1], 'fastmix search', Pace(beat=0.05)):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


def hold_elsewhere(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def write_lock(folder: Path, **changes: Any) -> None:
    """A lock of somebody else."""
    folder.mkdir(exist_ok=True)
    other = dataclasses.replace(this_process("fastmix train"), token="other", **changes)
    (folder / FILE).write_text(json.dumps(dataclasses.asdict(other)))


def test_it_is_gone_after_the_block_and_so_is_an_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    with run_lock(folder, "fastmix search", FAST):
        holder = read_holder(folder / FILE)
        assert isinstance(holder, Holder)
        assert holder.pid == os.getpid()
        # A process that the holder starts shares it.
        with run_lock(folder, "fastmix train", FAST):
            pass
        assert (folder / FILE).exists()
    assert not (tmp_path / "a").exists()
    with run_lock(folder, "fastmix search", FAST):
        (folder / "config.yaml").write_text("kept")
    assert [each.name for each in folder.iterdir()] == ["config.yaml"]


def test_a_living_holder_is_named_and_a_killed_one_is_not_waited_for(tmp_path: Path) -> None:
    process = hold_elsewhere(tmp_path / "run")
    try:
        with (
            pytest.raises(UserError, match=f"in use by fastmix search, process {process.pid} on "),
            run_lock(tmp_path / "run", "fastmix search", FAST),
        ):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / "run" / FILE).exists()
    with run_lock(tmp_path / "run", "fastmix search", FAST):
        holder = read_holder(tmp_path / "run" / FILE)
        assert holder is not None
        assert holder.pid == os.getpid()


def test_a_process_number_that_is_used_again_is_no_holder(tmp_path: Path) -> None:
    write_lock(tmp_path / "run", born="1")
    with run_lock(tmp_path / "run", "fastmix search", FAST):
        pass


def test_another_machines_lock_is_watched(tmp_path: Path) -> None:
    """Touched: in use. Not touched: stale, whatever the two clocks say."""
    said: list[str] = []
    write_lock(tmp_path / "run", machine="elsewhere", host="node7")
    os.utime(tmp_path / "run" / FILE, (time.time() + 9999, time.time() + 9999))
    with run_lock(tmp_path / "run", "fastmix search", FAST, said.append):
        pass
    assert "on node7" in said[0]

    process = hold_elsewhere(tmp_path / "living")
    path = tmp_path / "living" / FILE
    content = json.loads(path.read_bytes()) | {"machine": "elsewhere"}
    try:
        path.write_text(json.dumps(content))
        patient = dataclasses.replace(FAST, patience=30)
        with (
            pytest.raises(UserError, match="in use by"),
            run_lock(tmp_path / "living", "fastmix search", patient, said.append),
        ):
            pass
    finally:
        process.kill()
        process.wait()


def test_a_requeued_job_goes_on_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    write_lock(tmp_path / "run", machine="elsewhere", job="7")
    said: list[str] = []
    with (
        pytest.raises(UserError, match="in use by"),
        run_lock(tmp_path / "run", "fastmix search", FAST, said.append),
    ):
        pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with run_lock(tmp_path / "run", "fastmix search", FAST, said.append):
        pass
    assert not said


def test_a_job_that_starts_again_on_other_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the lock of its earlier start; on the same machine when that has ended."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("FASTMIX_START_IN_JOB", "2")
    write_lock(tmp_path / "run", machine="elsewhere", start=1)
    said: list[str] = []
    with run_lock(tmp_path / "run", "fastmix search", FAST, said.append):
        pass
    assert not said

    process = hold_elsewhere(tmp_path / "run")
    content = json.loads((tmp_path / "run" / FILE).read_bytes())
    (tmp_path / "run" / FILE).write_text(json.dumps(content | {"job": "7", "start": 1}))
    threading.Timer(0.3, process.kill).start()
    patient = dataclasses.replace(FAST, patience=30)
    with run_lock(tmp_path / "run", "fastmix search", patient):
        assert process.wait() == -signal.SIGKILL


def test_a_file_that_is_no_lock_is_watched_too(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("torn")
    said: list[str] = []
    with run_lock(tmp_path, "fastmix search", FAST, said.append):
        pass
    assert "nobody" in said[0]


def test_who_loses_the_lock_ends(tmp_path: Path) -> None:
    process = hold_elsewhere(tmp_path / "run")
    write_lock(tmp_path / "run")
    _, shown = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "was taken over by fastmix train" in shown


def test_two_searches_in_one_folder(settings: dict[str, Any], tmp_path: Path) -> None:
    """The second one is refused and the first one's records are whole."""
    settings["train"] |= {"steps": 2000}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    run_dir = Path(settings["run_dir"])
    first = start_fastmix("search", str(path), output=tmp_path / "first.log")
    try:
        while not (run_dir / FILE).exists():
            assert first.poll() is None, (tmp_path / "first.log").read_text()
            time.sleep(0.05)
        shown = fastmix("search", str(path), expect=2)
        assert f"{run_dir} is in use by fastmix search, process {first.pid} on " in shown
        assert "Traceback" not in shown
    finally:
        first.kill()
        first.wait()
