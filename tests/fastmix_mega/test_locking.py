"""One process at a time, whatever becomes of the others."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fastmix_mega.errors import UserError
from fastmix_mega.locking import Holder, Pace, Use, hold_lock, read_holder, this_process

FAST = Pace(beat=0.05, patience=0.5, settle=0.02)
USE = Use("fastmix data", "a", "another output")
HOLDER = """
import sys, time
from pathlib import Path
from fastmix_mega.locking import Pace, Use, hold_lock
use = Use("fastmix data", "a", "another output", record={"recipe": "r"})
with hold_lock(Path(sys.argv[1]), use, Pace(beat=0.05)):
    print("held", flush=True)
    time.sleep(60)
"""


def hold_elsewhere(path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def write_lock(path: Path, **changes: Any) -> Holder:
    """A lock of somebody else."""
    other = dataclasses.replace(this_process("fastmix data"), token="other", **changes)
    path.write_text(json.dumps(dataclasses.asdict(other)))
    return other


def test_another_process_is_named_and_a_killed_one_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with hold_elsewhere(path) as process:
        named = (
            rf"a is in use by fastmix data, process {process.pid} on {socket.gethostname()}, "
            "started .* name another output"
        )
        with pytest.raises(UserError, match=named), hold_lock(path, USE, FAST):
            pass
        process.kill()
    with hold_lock(path, USE, FAST) as lock:
        assert lock.previous is not None
        assert lock.previous.record == {"recipe": "r"}
    assert not path.exists()


def test_what_a_killed_process_left_can_be_left_there(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    left = write_lock(path, pid=1 << 30, record={"recipe": "r"})
    with hold_lock(path, USE, FAST) as lock:
        assert lock.previous == left
        assert read_holder(path) == lock.holder
        lock.keep_previous = True
    assert read_holder(path) == left


def test_another_machines_lock_counts_while_its_time_moves(tmp_path: Path) -> None:
    path, said, stop = tmp_path / "a.lock", list[str](), threading.Event()
    left = write_lock(path, machine="elsewhere", host="node7", pid=1)

    def renew() -> None:
        while not stop.wait(0.05):
            os.utime(path, ns=(time.time_ns(), time.time_ns()))

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        patient = dataclasses.replace(FAST, patience=30)
        with (
            pytest.raises(UserError, match="process 1 on node7"),
            hold_lock(path, USE, patient, said.append),
        ):
            pass
    finally:
        stop.set()
        renewing.join()
    with hold_lock(path, USE, FAST, said.append) as lock:
        assert lock.previous == left
    assert len(said) == 2
    assert "on node7" in said[0]


def test_a_lock_that_goes_while_it_is_watched_leaves_nothing(tmp_path: Path) -> None:
    """Its holder ended well: what it wrote is no business of the next."""
    path = tmp_path / "a.lock"
    write_lock(path, machine="elsewhere", record={"recipe": "r"})
    patient = dataclasses.replace(FAST, patience=30)
    with hold_lock(path, USE, patient, lambda _: path.unlink()) as lock:
        assert lock.previous is None
        assert read_holder(path) == lock.holder


def test_who_loses_the_lock_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    process = hold_elsewhere(path)
    write_lock(path)
    _, shown = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "was taken over by fastmix data" in shown


@pytest.mark.parametrize("content", ["mine", "{}", "[" * 100_000])
def test_a_file_that_is_no_lock_stays(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.lock"
    path.write_text(content)
    with pytest.raises(UserError, match="lock"), hold_lock(path, USE, FAST):
        pass
    assert path.read_text() == content


def test_an_empty_lock_is_a_killed_process_s(tmp_path: Path) -> None:
    """Killed between making the file and writing who it is."""
    path = tmp_path / "a.lock"
    path.touch()
    with hold_lock(path, USE, dataclasses.replace(FAST, empty=0.05)) as lock:
        assert lock.previous is None
        assert read_holder(path) == lock.holder
    assert not path.exists()


def test_links_and_folders_stay(tmp_path: Path) -> None:
    file, link, folder = tmp_path / "file", tmp_path / "link.lock", tmp_path / "folder.lock"
    link.symlink_to(file)
    folder.mkdir()
    for path in (link, folder):
        with pytest.raises(UserError, match="not a lock file; move it"), hold_lock(path, USE, FAST):
            pass
    assert not file.exists()


def test_a_crashs_remains_are_taken_over_where_the_name_is_ours(tmp_path: Path) -> None:
    path, said = tmp_path / "run.lock", list[str]()
    path.write_bytes(bytes(64))
    ours = dataclasses.replace(USE, own_name=True)
    with hold_lock(path, ours, FAST, said.append) as lock:
        assert lock.previous is None
    assert "names nobody" in said[0]
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"cannot write .*a.lock: No such file"),
        hold_lock(tmp_path / "none" / "a.lock", USE, FAST),
    ):
        pass


def test_many_at_once(tmp_path: Path) -> None:
    """Threads hold it one after the other, never together."""
    path, held, most = tmp_path / "a.lock", [0], [0]

    def work() -> None:
        for _ in range(20):
            try:
                with hold_lock(path, USE, FAST):
                    held[0] += 1
                    most[0] = max(most[0], held[0])
                    held[0] -= 1
            except UserError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not path.exists()


def test_several_that_find_a_dead_lock_at_once(tmp_path: Path) -> None:
    """One at most gets it; the others are refused by name."""
    path, held, refused = tmp_path / "a.lock", list[int](), list[str]()
    write_lock(path, pid=1 << 30)
    patient = dataclasses.replace(FAST, beat=30.0, settle=0.3)
    begin, done = threading.Barrier(4), threading.Event()

    def work(number: int) -> None:
        begin.wait()
        try:
            with hold_lock(path, USE, patient):
                held.append(number)
                done.wait()
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(held) + len(refused) < 4:
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert len(held) == 1, refused
    assert all("in use by" in each for each in refused)
