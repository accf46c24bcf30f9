"""A lock file that says which process writes, and that a dead process does not keep.

The kernel's lock on the file ends with its process. Some shared file systems keep such a lock to
one machine, so that the holder also renews the file's time: a lock of another machine whose time
stands still is a dead process's. No clocks are compared.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastmix_mega.errors import UserError

FORMAT = "fastmix-lock/1"
RENEWED = 5.0
"""Seconds between two renewals of the file's time."""
WATCHED = 15.0
"""Seconds for which another machine's lock must stand still until it counts as a dead one's."""
ATTEMPTS = 20
_NO_KERNEL_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Lock:
    """A lock that this process holds.

    Attributes:
        previous: what a dead process left in the file, or None.
        keep_previous: put that back when the lock is released.
    """

    def __init__(self, path: Path, descriptor: int, previous: dict[str, Any] | None) -> None:
        self.previous, self.keep_previous = previous, False
        self._path, self._descriptor = path, descriptor
        self._released = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def write(self, record: dict[str, Any]) -> None:
        content = json.dumps(record).encode() + b"\n"
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)
        os.fsync(self._descriptor)

    def start(self) -> None:
        self._renewing.start()

    def _renew(self) -> None:
        while not self._released.wait(RENEWED):
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)

    def release(self) -> None:
        self._released.set()
        if self._renewing.is_alive():
            self._renewing.join()
        if self.keep_previous and self.previous is not None:
            self.write(self.previous)
        else:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        os.close(self._descriptor)


@contextlib.contextmanager
def hold_lock(path: Path, extra: dict[str, Any] | None = None) -> Iterator[Lock]:
    """Hold the lock file `path` while the block runs.

    Args:
        path: in a folder that exists; removed at the end.
        extra: further fields to write into it.

    Raises:
        UserError: if another process holds it, or the file is not a lock.
    """
    lock = _acquire(path)
    try:
        lock.write(_own_record() | (extra or {}))
        lock.start()
        yield lock
    finally:
        lock.release()


def _acquire(path: Path) -> Lock:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path} is not a lock file; move it, or name another output")
    for _ in range(ATTEMPTS):
        lock = _try_to_acquire(path)
        if lock is not None:
            return lock
        time.sleep(0.02)
    raise UserError(f"{path} is empty, so no lock of ours; move it, or name another output")


def _try_to_acquire(path: Path) -> Lock | None:
    """None if the file was just made or removed by another process."""
    created = True
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    except FileExistsError:
        created = False
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
    lock = None
    try:
        locked = _lock_by_kernel(descriptor)
        record = _read_record(path, descriptor)
        if not locked or (record is not None and _is_alive(record, path)):
            raise UserError(_held_message(path, record))
        if (created or record is not None) and _is_same_file(path, descriptor):
            lock = Lock(path, descriptor, record)
    finally:
        if lock is None:
            os.close(descriptor)
    return lock


def _lock_by_kernel(descriptor: int) -> bool:
    """False if another process has it; True also where the file system has no such locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_KERNEL_LOCKS:
            raise
    return True


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read_record(path: Path, descriptor: int) -> dict[str, Any] | None:
    content = os.pread(descriptor, 1 << 16, 0)
    if not content.strip(b"\0\n "):
        # A process that died, or a machine that crashed, before it wrote its name.
        return None
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{path} is not a lock file of ours; move it, or name another output")
    return record


def _own_record() -> dict[str, Any]:
    return {
        "format": FORMAT,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": _process_start(os.getpid()),
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _process_start(pid: int) -> str | None:
    """What tells a process from a later one of the same number; None where it cannot be known."""
    try:
        # The name, in brackets, may hold spaces: count from its end.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _is_alive(record: dict[str, Any], path: Path) -> bool:
    """Of a record whose kernel lock, if there is one here, is free."""
    if record.get("host") == socket.gethostname():
        pid, start = record.get("pid"), record.get("process_start")
        # Our own process has let go of it, or the kernel would have said so.
        if not isinstance(pid, int) or pid == os.getpid():
            return False
        return start is not None and _process_start(pid) == start
    before = _time_of(path)
    end = time.monotonic() + WATCHED
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCHED))
        if _time_of(path) != before:
            return True
    return False


def _time_of(path: Path) -> int | None:
    try:
        # Network file systems ask the server anew when a file is opened.
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _held_message(path: Path, record: dict[str, Any] | None) -> str:
    who = "another process"
    if record is not None:
        who = (
            f"process {record.get('pid')} on {record.get('host')}, started {record.get('started')},"
        )
    return f"{path}: {who} is writing this; wait for it, or name another output"
