"""A lock file that names the process that writes, and that a dead process does not keep.

Locks of the kernel are not enough here: on NFS and Lustre they may hold on one machine only, or not
exist, depending on how the file system is mounted. This lock needs only that a file can be created
exclusively and renamed, as every shared file system promises.

The holder touches the file every few seconds. Whoever finds a lock decides whether it is stale:

- Nobody: whoever made it was killed before writing into it, if that takes seconds.
- A process of this machine: it is stale if that process has ended (`kill -9` included).
- The same Slurm job before it was requeued, or before it was started again on other nodes (see
  `fastmix_mega.cli.allocation`): it is stale, since a job never runs twice at once.
- A process of another machine: whoever starts watches the file. If it is touched, the lock is in
  use. If it is not touched for two minutes, the lock is stale. Clocks are never compared.

A holder that finds its lock taken over (its machine slept, say) ends its process at once, before it
can write over the other's work.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastmix_mega.errors import UserError
from fastmix_mega.files import write_atomic

START_VARIABLE = "FASTMIX_START_IN_JOB"
"""Environment variable: the number of a start within a Slurm job's allocation, from 1."""
READS = 20
"""Looks at a lock without content, whose holder may be about to write it."""
BETWEEN_READS = 0.02
"""Seconds."""


@dataclass(frozen=True)
class Pace:
    """Seconds. Attributes may be cached for a minute on NFS, which `patience` must exceed."""

    beat: float = 5.0
    """Between two signs of life of a holder."""
    patience: float = 120.0
    """Without a sign of life until a lock of another machine counts as stale."""
    empty: float = 5.0
    """A lock that nobody has written into for so long is a killed process's."""
    settle: float = 1.0
    """After a stale lock was taken over, before it is looked at again: the last of several that do
    so at once keeps it."""


PACE = Pace()


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: the content of its file."""

    command: str
    host: str
    """The machine's name."""
    machine: str
    """Boot and process namespace: where `pid` means something."""
    pid: int
    born: str
    """When the process started, in the kernel's ticks: numbers of processes are used again."""
    started: str
    """When it took the lock, for people."""
    job: str = ""
    """Slurm's number of the job and of the array's task; empty outside."""
    restarts: int = 0
    """How often Slurm has requeued the job."""
    start: int = 0
    """Of the job within its allocation."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    record: dict[str, Any] = field(default_factory=dict)
    """What the command wants to find if it is killed."""

    def __str__(self) -> str:
        return f"{self.command}, process {self.pid} on {self.host}, started {self.started}"


@dataclass(frozen=True)
class Use:
    """What a lock is for."""

    command: str
    """For the message that others get, such as `fastmix search`."""
    what: str
    """That nobody else may write meanwhile: a run folder, an output."""
    elsewhere: str
    """Where others can write, such as `another run_dir`."""
    own_name: bool = False
    """Nobody else's files are called like the lock: one without a holder is a crash's remains."""
    record: dict[str, Any] = field(default_factory=dict)
    """See `Holder`."""


@dataclass
class Lock:
    """A lock that this process holds."""

    holder: Holder
    previous: Holder | None
    """Whose process died and left the lock."""
    keep_previous: bool = False
    """Leave the lock as the dead process left it."""


@contextlib.contextmanager
def hold_lock(
    path: Path, use: Use, pace: Pace = PACE, say: Callable[[str], None] | None = None
) -> Iterator[Lock]:
    """Hold the lock file `path` while the block runs.

    Args:
        path: in a folder that exists; removed at the end.
        use: what the lock is for.
        pace: how fast a holder is known to be alive or not.
        say: gets a line before another machine's lock is watched.

    Raises:
        UserError: if another process holds it, the file is not a lock, or it cannot be written.
    """
    holder = this_process(use.command, use.record)
    try:
        lock = Lock(holder, _take(path, holder, use, pace, say or _say))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(path, holder, pace, ended), daemon=True)
    beats.start()
    try:
        yield lock
    finally:
        ended.set()
        beats.join()
        # A forked worker that leaves this block by an exception holds nothing.
        if os.getpid() == holder.pid and read_holder(path) == holder:
            with contextlib.suppress(OSError):
                if lock.keep_previous and lock.previous is not None:
                    write_atomic(path, _content(lock.previous))
                else:
                    path.unlink()


def this_process(command: str, record: dict[str, Any] | None = None) -> Holder:
    """This process as a holder."""
    job = os.environ.get("SLURM_JOB_ID", "")
    return Holder(
        command=command,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        born=_born(os.getpid()),
        started=datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
        job=job,
        restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")) if job else 0,
        start=int(os.environ.get(START_VARIABLE, "0")) if job else 0,
        record=record or {},
    )


def read_holder(path: Path) -> Holder | None:
    """Who holds a lock; None if nobody does, or the file is no lock of ours."""
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _take(
    path: Path, holder: Holder, use: Use, pace: Pace, say: Callable[[str], None]
) -> Holder | None:
    """Make the lock file this holder's.

    Returns:
        The dead process that left it, if there was one.

    Raises:
        UserError: if another process holds it, or it is no lock.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(f"{path} is not a lock file; move it, or name {use.elsewhere}")
    other = None
    for _ in range(READS):
        if _create(path, _content(holder)):
            return None
        other = read_holder(path)
        if other is not None:
            break
        time.sleep(BETWEEN_READS)
    empty = other is None and _stays_empty(path, pace.empty)
    if other is None and not empty:
        other = read_holder(path)
    if other is None and not (empty or use.own_name or not path.exists()):
        raise UserError(f"{path} is not a lock file of ours; move it, or name {use.elsewhere}")

    if not empty and not _is_stale(path, other, holder, pace, say):
        raise UserError(
            f"{use.what} is in use by {other or 'another process'}. Wait until it ends, or name "
            f"{use.elsewhere}. If you are sure that it is gone, remove {path}"
        )
    if not path.exists():
        return _take(path, holder, use, pace, say)  # Its holder ended in the meantime.
    write_atomic(path, _content(holder))
    time.sleep(pace.settle)
    winner = read_holder(path)
    if winner != holder:
        raise UserError(f"{use.what} is in use by {winner or 'another process'}")
    return other


def _stays_empty(path: Path, seconds: float) -> bool:
    """Whether a process was killed between making the lock and writing who it is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if path.stat().st_size:
                return False
        except OSError:
            return False
        time.sleep(BETWEEN_READS)
    return True


def _content(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode() + b"\n"


def _create(path: Path, content: bytes) -> bool:
    """False if there is such a file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return True


def _is_stale(
    path: Path, other: Holder | None, mine: Holder, pace: Pace, say: Callable[[str], None]
) -> bool:
    """Whether the process that wrote the lock is gone."""
    same_job = other is not None and other.job != "" and other.job == mine.job
    if other is not None and other.machine == mine.machine:
        before = same_job and _start_of(other) < _start_of(mine)
        # Slurm is about to kill what was before.
        end = time.monotonic() + (pace.patience if before else 0.0)
        while _born(other.pid) == other.born and time.monotonic() < end:
            time.sleep(BETWEEN_READS)
        return _born(other.pid) != other.born
    if other is not None and same_job:
        return _start_of(other) < _start_of(mine)
    say(
        f"{path} names {other or 'nobody'}: watching for up to {pace.patience:.0f} seconds whether "
        "that is alive"
    )
    seen = _touched(path)
    end = time.monotonic() + pace.patience
    while time.monotonic() < end:
        time.sleep(min(pace.beat, pace.patience) / 2)
        now = _touched(path)
        if now is not None and now != seen:
            return False
        if now is None:
            return True  # It ended in the meantime.
    return True


def _start_of(holder: Holder) -> tuple[int, int]:
    return holder.restarts, holder.start


def _beat(path: Path, holder: Holder, pace: Pace, ended: threading.Event) -> None:
    """Show that this process is alive, and end it if the lock is another's."""
    while not ended.wait(pace.beat):
        if os.getpid() != holder.pid:
            return
        now = read_holder(path)
        if now is not None and now.token != holder.token:
            print(f"fastmix: {path} was taken over by {now}; this process ends", file=sys.stderr)
            sys.stderr.flush()
            os._exit(1)
        # A full or unreachable disk must not end the process; the lock only looks older.
        with contextlib.suppress(OSError):
            os.utime(path)


def _touched(path: Path) -> int | None:
    """Nanoseconds, by the file system's own clock; None without the file."""
    try:
        # Opening asks an NFS server for what is new; looking alone may not.
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _machine() -> str:
    """Where numbers of processes are one and the same: a boot of a host, and a namespace."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _born(pid: int) -> str:
    """When a process of this machine started; empty if there is none, or only its remains."""
    try:
        # The name before the last bracket may hold spaces and brackets itself.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
