"""Run a Slurm job's step on nodes of its allocation, and again on others when a node is lost.

    python -m fastmix_mega.cli.allocation --job ID --nodes N --min-nodes M ... -- COMMAND ...

slurm/run.sh runs this on the job's first node; it needs Python's own library and Slurm's commands,
whatever container COMMAND is put into. Slurm leaves a job the rest of its nodes if the job was
submitted with `--no-kill`. A spare node then takes the lost one's place; without one the run goes
on with fewer nodes, as far as `--min-nodes` and the configuration allow; else the job is requeued.

Slurm starts a job again whose first node is lost, but not under `--no-kill`: there the job would
live on without its script. A step on another node watches for that.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from fastmix_mega.locking import START_VARIABLE
from fastmix_mega.training.place import RESTARTED, RESTARTS_VARIABLE
from fastmix_mega.training.stop import EXIT_STOPPED

CHECK_VARIABLE = "FASTMIX_CHECK_NODES"
"""Environment variable: COMMAND is only to check whether it can run on so many nodes."""
RENDEZVOUS_VARIABLE = "RENDEZVOUS"
"""Environment variable: host:port of a step's first node."""
PROBE_SECONDS = 60.0
"""For a node to start a process, before it counts as lost. Slurm itself tries for some seconds."""
ANSWER_SECONDS = 300.0
"""For Slurm's controller to answer; it may be restarted while jobs run."""
WATCH_SECONDS = 15.0
"""Between two looks of the step that watches the first node."""
LOOK_SECONDS = 5.0
"""Between two looks at that step."""


@dataclass(frozen=True)
class Job:
    """What Slurm knows of a job."""

    state: str
    nodes: tuple[str, ...]
    """Of its allocation, without those that Slurm has given up, in Slurm's order."""
    batch_host: str
    """Where the job's script runs."""


def job_of(number: str) -> Job | None:
    """A job as it is now; None while Slurm's controller does not answer, or does not know it."""
    form = "--format=%T|%N|%B"
    try:
        state, nodes, host = _output("squeue", "--noheader", "--jobs", number, form).split("|")
        names = _output("scontrol", "show", "hostnames", nodes).split() if nodes else []
    except (subprocess.SubprocessError, ValueError):
        return None
    return Job(state, tuple(names), host.strip())


def answering(nodes: Collection[str]) -> list[str]:
    """The nodes of this job that start a process when they are asked to."""
    probes = {node: _silent(srun([node], "true")) for node in nodes}
    end = time.monotonic() + PROBE_SECONDS
    found = []
    for node, probe in probes.items():
        try:
            if probe.wait(max(0.0, end - time.monotonic())) == 0:
                found.append(node)
        except subprocess.TimeoutExpired:
            probe.kill()
            probe.wait()
    return found


def srun(nodes: Sequence[str], *command: str, options: Sequence[str] = ()) -> list[str]:
    """The command of a step with one task a node.

    It may share what an earlier step holds: that of a lost node never ends, in Slurm's books.
    """
    count = str(len(nodes))
    place = ["--nodes", count, "--ntasks", count, "--nodelist", ",".join(nodes)]
    return ["srun", "--overlap", *place, *options, *command]


def numbers_to_try(healthy: int, wanted: int, least: int) -> list[int]:
    """Numbers of nodes to go on with, the best first; empty if they are too few.

    Args:
        healthy: nodes that are left.
        wanted: the run's own number.
        least: see `--min-nodes`.
    """
    return list(range(min(healthy, wanted), least - 1, -1))


def port_of(job: int, requeued: int, start: int) -> int:
    """Of a step's rendezvous: jobs that share a node must not share one, nor a job with its own
    earlier step, whose processes may still be ending.

    Args:
        job: its number.
        requeued: how often it has been.
        start: number of the step since then, from 1.
    """
    return 20000 + zlib.crc32(f"{job} {requeued} {start}".encode()) % 12000


class Supervisor:
    """A job's steps, one after the other.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._starts = 0
        self._asked = False
        self._step: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._watches = 0
        self._next_watch = 0.0
        self._spares = int(os.environ["SLURM_JOB_NUM_NODES"]) > options.nodes
        self._lost: set[str] = set()
        self._restarts: list[dict[str, str]] = []
        """Lines of events.jsonl."""
        signal.signal(signal.SIGUSR1, self._stop)

    def run(self) -> int:
        """Returns the exit code; 75 if the job is to be requeued."""
        wanted, job = self.options.nodes, self._job()
        if job is None:
            raise SystemExit(f"Slurm does not say that job {self.options.job} runs")
        nodes: Sequence[str] = job.nodes[:wanted]
        if len(nodes) < wanted:  # Lost since the job was given its nodes.
            nodes = self._choose()
        try:
            while nodes and not self._asked:
                code = self._run_step(nodes)
                lost = [] if code == EXIT_STOPPED else self._lost_of(nodes, code)
                if not lost:
                    return code
                self._note(lost)
                nodes = [] if self._asked else self._choose()
        finally:
            if self._watch is not None:
                self._watch.terminate()
                self._watch.wait()
        # A job that somebody has cancelled meanwhile is not requeued.
        return EXIT_STOPPED if self._job() is not None else 1

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._asked = True
        if self._step is not None and self._step.poll() is None:
            self._step.send_signal(number)

    def _job(self) -> Job | None:
        """The job; None if it does not run any more, or Slurm does not answer for long."""
        end = time.monotonic() + ANSWER_SECONDS
        while (job := job_of(self.options.job)) is None and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
        return job if job is not None and job.state == "RUNNING" else None

    def _run_step(self, nodes: Sequence[str]) -> int:
        """COMMAND on these nodes; returns srun's exit code."""
        self._starts += 1
        again = "" if self._starts == 1 else f"-again{self._starts - 1}"
        log = f"{self.options.logs}{again}-node%n.log"
        requeued = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        port = port_of(int(os.environ["SLURM_JOB_ID"]), requeued, self._starts)
        own = {
            START_VARIABLE: str(self._starts),
            RESTARTS_VARIABLE: json.dumps(self._restarts),
            RENDEZVOUS_VARIABLE: f"{nodes[0]}:{port}",
        }
        say(f"start {self._starts} in this job, on {','.join(nodes)}, logs {log}")
        self._keep_watch()
        options = [*self._cores(), "--kill-on-bad-exit=1", f"--output={log}"]
        command = srun(nodes, *self.options.command, options=options)
        self._step = subprocess.Popen(command, env=os.environ | own)
        if self._asked:  # Between the last look and here: srun would not know.
            self._step.send_signal(signal.SIGUSR1)
        while True:
            try:
                code = self._step.wait(LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self._keep_watch()
        first = Path(log.replace("%n", "0"))
        if first.exists():
            sys.stdout.write(first.read_text(errors="replace"))
            sys.stdout.flush()
        return 128 - code if code < 0 else code

    def _cores(self) -> list[str]:
        """A step does not inherit the job's: without the number its one task gets one core."""
        return ["--cpus-per-task", self.options.cpus]

    def _lost_of(self, nodes: Sequence[str], code: int) -> list[str]:
        """Which nodes of a step that ended are lost.

        srun's exit code is 0 after it has heard of a lost node. Where it tells of a failure, the
        nodes are asked: Slurm may not have missed one that could not even start.
        """
        job = self._job()
        if job is None:
            return []
        left = [node for node in nodes if node in job.nodes]
        if code != 0:
            left = answering(left)
        return [node for node in nodes if node not in left]

    def _note(self, lost: list[str]) -> None:
        self._lost |= set(lost)
        cause = f"lost: {','.join(lost)}"
        name = f"{self.options.job} {os.environ.get('SLURM_RESTART_COUNT', 0)} {self._starts}"
        self._restarts.append(
            {"kind": RESTARTED, "cause": cause, "host": lost[0], "id": f"{name} {cause}"}
        )

    def _choose(self) -> list[str]:
        """Nodes for the next step; empty if the job is to be requeued."""
        job, wanted = self._job(), self.options.nodes
        if job is None:
            return []
        gone = ",".join(sorted(self._lost)) or "a node"
        healthy = answering([node for node in job.nodes if node not in self._lost])
        for count in numbers_to_try(len(healthy), wanted, self.options.min_nodes):
            chosen = [node for node in job.nodes if node in healthy][:count]
            if count == wanted:
                say(f"lost: {gone}; the run goes on with a spare node in its place")
                return chosen
            if self._can_run(count, chosen[0]):
                say(f"lost: {gone}; the run goes on with {count} of {wanted} nodes")
                return chosen
        say(f"lost: {gone}; {len(healthy)} node(s) are left, with which the run cannot go on")
        return []

    def _can_run(self, count: int, node: str) -> bool:
        """Whether the configuration can run on so many nodes; its mistakes are told."""
        command = srun([node], *self.options.command, options=self._cores())
        environment = os.environ | {CHECK_VARIABLE: str(count)}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            say(f"it cannot run on {count} node(s):\n{done.stdout}")
        return done.returncode == 0

    def _keep_watch(self) -> None:
        """See to it that another node than the first watches it, if nodes are to be replaced."""
        running = self._watch is not None and self._watch.poll() is None
        heals = self.options.min_nodes < self.options.nodes or self._spares
        if running or not heals or time.monotonic() < self._next_watch:
            return
        self._next_watch = time.monotonic() + WATCH_SECONDS
        job = job_of(self.options.job)
        others = [node for node in job.nodes if node != job.batch_host] if job else []
        others = [node for node in others if node not in self._lost]
        if not others:
            return
        # The last ones are spares; another one each time: the one before may be lost.
        node = others[-1 - self._watches % len(others)]
        self._watches += 1
        own = [sys.executable, "-m", __spec__.name, "--job", self.options.job, "--watch"]
        # With %t in its name the node itself writes the log, not srun, which dies with the first.
        log = f"--output={self.options.logs}-watch{self._watches}-task%t.log"
        self._watch = _silent(srun([node], *own, options=[log]))


def watch(number: str) -> None:
    """Requeue a job whose script is gone with its node, which Slurm does not under `--no-kill`."""
    say(f"watching the first node of job {number}")
    while True:
        job = job_of(number)
        if job is not None and job.state == "RUNNING" and job.batch_host not in job.nodes:
            say(f"lost: {job.batch_host}, with the job's script; the job is requeued")
            if subprocess.run(["scontrol", "requeue", number]).returncode:
                subprocess.run(["scancel", number])
        time.sleep(WATCH_SECONDS)


def say(text: str) -> None:
    print(text, flush=True)


def _silent(command: Sequence[str]) -> subprocess.Popen[bytes]:
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)


def _output(*command: str) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=PROBE_SECONDS
    ).stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--job", required=True, help="as squeue names it: ID, or ARRAY_TASK")
    parser.add_argument("--watch", action="store_true", help="only watch the job's first node")
    parser.add_argument("--nodes", type=int, help="of the job's nodes; the others are spare")
    parser.add_argument("--min-nodes", type=int, help="go on with so many, where more are lost")
    parser.add_argument("--cpus", help="cores of a node")
    parser.add_argument("--logs", help="what the names of the nodes' logs begin with")
    parser.add_argument("command", nargs="*", help="what a node runs")
    return parser.parse_args()


def main() -> int:
    """Returns the exit code; 75 if the job is to be requeued."""
    options = _options()
    if options.watch:
        watch(options.job)
    return Supervisor(options).run()


if __name__ == "__main__":
    sys.exit(main())
