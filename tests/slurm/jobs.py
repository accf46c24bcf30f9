"""Slurm's commands for these tests, and what a job does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tests.launch import clean_environment

ROOT = Path(__file__).parent.parent.parent
ENDING = 16
"""Lines of a log that are shown of a job that did not end well."""


class Jobs:
    """Slurm's commands, and what a job's log says."""

    def __init__(self, slurm: dict[str, str], directory: Path) -> None:
        self.directory = directory
        self.lost: list[str] = []
        """Nodes."""
        site = directory / "site.sh"
        site.write_text(
            "load_modules() { :; }\n"
            f"export FASTMIX_VENV={sys.prefix} FASTMIX_LOGS={directory}/logs\nCONTAINER=()\n"
        )
        self.environment = clean_environment() | slurm | {"FASTMIX_SITE": str(site)}
        for name in ("RANK", "WORLD_SIZE"):
            self.environment.pop(name, None)

    def call(self, *command: str, check: bool = True) -> str:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            check=check,
            capture_output=True,
            text=True,
            timeout=180,
        ).stdout

    def submit(self, script: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
        output = f"--output={self.directory}/%j.log"
        return self.call(
            "sbatch", "--parsable", output, *options, f"slurm/{script}", *arguments
        ).strip()

    def wait_for(self, job: str, *states: str) -> None:
        end = time.monotonic() + 900
        while (state := self.state(job)) not in states:
            assert time.monotonic() < end, f"{state}:\n{self._ends(job)}"
            bad = ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "COMPLETED")
            assert state not in bad, f"{state}:\n{self._ends(job)}"
            time.sleep(0.3)

    def state(self, job: str) -> str:
        fields = self.call("scontrol", "--oneliner", "show", "job", job).split()
        return dict(field.partition("=")[::2] for field in fields)["JobState"]

    def seconds(self, job: str) -> float:
        """How long it has been running."""
        elapsed = self.call("squeue", "--noheader", "--format=%M", "--jobs", job).strip()
        minutes, _, seconds = elapsed.rpartition(":")
        return 60 * float(minutes) + float(seconds)

    def lose(self, node: str, told: bool = True) -> None:
        """Kill a node's daemon and all that runs there.

        Args:
            node: its name.
            told: let Slurm know at once what it finds by itself after SlurmdTimeout.
        """
        self.lost.append(node)
        mark = f"SLURMD_NODENAME={node}".encode()
        parents = {int(self._daemon(node).read_text()): 1}
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (directory / "environ").read_bytes().split(b"\0"):
                    # Its parent may be the daemon of a step, which has no such variable.
                    parent = parent_of(int(directory.name))
                    parents |= {int(directory.name): parent, parent: parent_of(parent)}
        dying = sorted(parents.keys() - {1}, key=lambda pid: _depth(pid, parents), reverse=True)
        # All at once, as a node dies: srun has a child that ends the step of a killed srun. And
        # children first: Linux wakes stopped processes, with SIGHUP, when they become orphans.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in dying:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        if told:
            self.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def bring_back(self) -> None:
        """Start the daemons of lost nodes again; jobs that wait for nodes may start at once."""
        while self.lost:
            node = self.lost.pop()
            self.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")
            self.call("slurmd", "-N", node)
        end = time.monotonic() + 180
        # "down*" has not been heard of yet.
        while "down" in self.call("sinfo", "--noheader", "--Node", "--format=%T"):
            assert time.monotonic() < end, self.call("sinfo", "--Node", "--long")
            time.sleep(0.2)

    def _daemon(self, node: str) -> Path:
        return Path(self.environment["SLURM_CI_DIR"]) / "pid" / f"slurmd.{node}.pid"

    def wait_for_text(self, job: str, text: str) -> None:
        """In the job's logs."""
        end = time.monotonic() + 180
        while text not in (said := self.log(job)):
            assert time.monotonic() < end, said
            time.sleep(0.1)

    def log(self, job: str) -> str:
        return "\n".join(each.read_text() for each in self._logs(job))

    def _logs(self, job: str) -> list[Path]:
        path = self.directory / f"{job}.log"
        every = [path, *sorted((self.directory / "logs" / job).glob("*"))]
        return [each for each in every if each.exists()]

    def _ends(self, job: str) -> str:
        """Of the job's logs, and of those of Slurm's daemons: the whole would be cut anywhere."""
        daemons = sorted((Path(self.environment["SLURM_CI_DIR"]) / "log").glob("slurm*.log"))
        return "\n".join(
            "\n".join([f"--- {each}", *each.read_text(errors="replace").splitlines()[-ENDING:]])
            for each in [*self._logs(job)[-4:], *daemons, *self._logs(job)[:1]]
        )


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _depth(pid: int, parents: dict[int, int]) -> int:
    """Its number of ancestors among these processes."""
    return 1 + _depth(parents[pid], parents) if parents.get(pid) in parents else 0


def config_file(settings: dict[str, Any], tmp_path: Path, steps: int = 300) -> str:
    settings["train"]["steps"] = steps
    settings["checkpoint"] = {"every": min(50, steps // 2)}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def wait_for_steps(run_dir: Path, count: int) -> None:
    metrics = run_dir / "metrics.jsonl"
    limit = time.monotonic() + 600
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= count):
        assert time.monotonic() < limit, "the job does not train (a failed start is in its log)"
        time.sleep(0.1)
