"""What the healing campaign does to a run: faults at places, and hurts from outside.

A fault at a place is one of tests/faulty.py, which strikes in the process itself. A hurt from
outside waits until the run has logged some steps; then it kills, stops, fills the disk, and so on.
Disks are small ones in memory (tmpfs), mounted at the run folder: that needs root.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import ranks
from tests.stress.layouts import STEPS, Layout

LIMIT_SECONDS = 1800.0
"""For a run; they take seconds, and minutes on a machine whose processors others want."""
DISK = "64m"
"""Of a small disk; a run takes a tenth of it."""
FILLER = "filler"


@dataclass(frozen=True)
class Scene:
    """A run that is being hurt."""

    config: Path
    layout: Layout
    launcher: int
    """Its process id."""
    victim: str
    """A rank, or `all`."""

    @property
    def run_dir(self) -> Path:
        return self.config.parent / "run"

    def lives(self) -> bool:
        """Whether the launcher has not ended, which nobody has waited for yet."""
        return os.waitid(os.P_PID, self.launcher, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait_for(self, step: int, seconds: float) -> None:
        """Until that step is logged, and some time more; at most until the end of the run."""
        metrics = self.run_dir / "metrics.jsonl"
        end = time.monotonic() + LIMIT_SECONDS
        while self.lives() and time.monotonic() < end:
            if step == 0 or (metrics.exists() and metrics.read_bytes().count(b"\n") >= step):
                break
            time.sleep(0.01)
        time.sleep(seconds)

    def workers(self) -> list[int]:
        """Process ids, in the order of ranks."""
        path = Path(f"/proc/{self.launcher}/task/{self.launcher}/children")
        with contextlib.suppress(OSError):
            return sorted(map(int, path.read_text().split()))
        return []


Outside = Callable[[Scene], str]
"""Hurts a run that has come so far; returns what is wrong already, if anything."""


def send(number: signal.Signals) -> Outside:
    """A signal to the victims."""

    def strike(scene: Scene) -> str:
        workers = scene.workers()
        chosen = workers if scene.victim == "all" else workers[int(scene.victim) :][:1]
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return ""

    return strike


def fill(folder: Path) -> None:
    """Take all that is left of a disk."""
    with contextlib.suppress(OSError), (folder / FILLER).open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def full_for(seconds: float) -> Outside:
    """No room for that long."""

    def strike(scene: Scene) -> str:
        end = time.monotonic() + seconds
        while scene.lives() and time.monotonic() < end:
            fill(scene.run_dir)
            time.sleep(0.02)
        (scene.run_dir / FILLER).unlink(missing_ok=True)
        return ""

    return strike


def read_only(scene: Scene) -> str:
    """The run folder's place is taken by a read-only view of it, until the run has ended."""
    folder, view = str(scene.run_dir), f"{scene.run_dir}.view"
    os.mkdir(view)
    subprocess.run(["mount", "--bind", folder, view], check=True)
    # Elsewhere first: in place the run might be writing, which makes it busy.
    subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
    subprocess.run(["mount", "--bind", view, folder], check=True)
    end = time.monotonic() + LIMIT_SECONDS
    while scene.lives() and time.monotonic() < end:
        time.sleep(0.05)
    for mounted in (folder, view):
        subprocess.run(["umount", mounted], check=True)
    return ""


def second_run(scene: Scene) -> str:
    """The same command once more: it must be refused, with the name of the first."""
    log = scene.config.parent / "second.log"
    words = [scene.layout.verb, str(scene.config), "--nproc", str(scene.layout.processes)]
    code = ranks.supervise(ranks.start(words, 1, log))
    said = log.read_text()
    expected = f"is in use by fastmix {scene.layout.verb}, process {scene.launcher} on"
    if code != 2 or expected not in said:
        return f"a second run ended with {code}: {said[-500:]}"
    return ""


def delete_checkpoints(scene: Scene) -> str:
    shutil.rmtree(scene.run_dir / "checkpoints", ignore_errors=True)
    return ""


def delete_and_kill(scene: Scene) -> str:
    return delete_checkpoints(scene) or send(signal.SIGKILL)(scene)


@dataclass(frozen=True)
class Hurt:
    """A kind of fault, and what the user must see of it."""

    says: str
    """A regular expression that the log holds where the fault met the run; empty for nothing."""
    restarts: bool = True
    """Whether the launcher starts the processes again; else there is no stack trace either."""
    calls: int = 0
    """For a fault of tests/faulty.py: how often each rank comes past its place, at least."""
    outside: Outside | None = None
    disk: bool = False
    """Whether the run folder is a disk of its own; needs root."""
    ends: tuple[int, ...] = ()
    """Exit codes with which the run may end; it goes on when the command is given again."""


KILLED = r"was killed by SIGKILL .*restart 1"
FAILED = r"rank \d failed after step \d+, in .*{}(.|\n)*restart 1"
NO_ROOM = r"No space left on device"
HURTS = {
    "kill-start": Hurt(KILLED, calls=1),
    "kill-step": Hurt(KILLED, calls=STEPS),
    "kill-outer": Hurt(KILLED, calls=4),
    "kill-save": Hurt(KILLED, calls=8),
    "kill-seal": Hurt(KILLED, calls=4),
    "kill at a moment": Hurt(KILLED, outside=send(signal.SIGKILL)),
    "stop at a moment": Hurt(r"the run hangs after step", outside=send(signal.SIGSTOP)),
    "raise": Hurt(FAILED.format("CUDA out of memory"), calls=STEPS),
    "memory": Hurt(FAILED.format("can't allocate memory"), calls=STEPS),
    "full disk for a while": Hurt("", False, outside=full_for(0.7), disk=True, ends=(1,)),
    "full disk": Hurt(NO_ROOM, False, outside=full_for(LIMIT_SECONDS), disk=True, ends=(1,)),
    "read-only": Hurt(
        "Read-only file system|cannot write to", False, outside=read_only, ends=(1, 2)
    ),
    "slow-disk": Hurt("", False, calls=4),
    "clock-forward": Hurt("", False, calls=STEPS),
    "clock-back": Hurt("", False, calls=STEPS),
    "jumping clock, kill-step": Hurt(KILLED, calls=STEPS),
    "second run": Hurt("", False, outside=second_run),
    "checkpoints deleted": Hurt("", False, outside=delete_checkpoints),
    "checkpoints deleted, kill": Hurt(KILLED, outside=delete_and_kill),
    "torchrun, kill-step": Hurt("", calls=STEPS),
}
"""The last one is launched cold, by torchrun itself."""


def wrong_words(hurt: Hurt, log: str, met: bool) -> str:
    """What is wrong with what the user was told, if anything."""
    if met and hurt.says and not re.search(hurt.says, log):
        return f"nothing says {hurt.says!r}"
    if not hurt.restarts and "Traceback" in log:
        return "a stack trace"
    return ""


@contextlib.contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disk(hurt: Hurt, folder: Path) -> contextlib.AbstractContextManager[None]:
    """A disk of its own at the run folder, where the hurt needs one."""
    folder.mkdir()
    return _mounted(folder) if hurt.disk else contextlib.nullcontext()
