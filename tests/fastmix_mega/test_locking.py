"""One process at a time, whatever becomes of the others."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fastmix_mega import locking
from fastmix_mega.errors import UserError
from fastmix_mega.locking import hold_lock

HOLDER = """
import sys, time
from pathlib import Path
from fastmix_mega.locking import hold_lock
with hold_lock(Path(sys.argv[1]), {"recipe": "r"}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_named_and_a_killed_one_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"process {process.pid} on {socket.gethostname()}"),
            hold_lock(path),
        ):
            pass
        process.kill()
    with hold_lock(path) as lock:
        assert lock.previous is not None
        assert lock.previous["recipe"] == "r"
    assert not path.exists()


def test_another_machines_lock_counts_while_its_time_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "WATCHED", 2.5)
    path = tmp_path / "a.lock"
    record = {"format": locking.FORMAT, "host": "elsewhere", "pid": 1, "started": "today"}
    path.write_text(json.dumps(record))
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(0.3):
            os.utime(path, ns=(time.time_ns(), time.time_ns()))

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        with pytest.raises(UserError, match="process 1 on elsewhere"), hold_lock(path):
            pass
    finally:
        stop.set()
        renewing.join()
    with hold_lock(path) as lock:
        assert lock.previous == record


@pytest.mark.parametrize("content", ["mine", "", "{}"])
def test_a_file_that_is_no_lock_stays(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.lock"
    path.write_text(content)
    with pytest.raises(UserError, match="lock"), hold_lock(path):
        pass
    assert path.read_text() == content


def test_many_at_once(tmp_path: Path) -> None:
    """Threads hold it one after the other, never together."""
    path, held, most = tmp_path / "a.lock", [0], [0]

    def work() -> None:
        for _ in range(20):
            try:
                with hold_lock(path):
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
