"""torchrun's agent, with a judgement of its own on whether a run that failed is started again.

torchrun starts its workers again whatever ended them. Here a user's mistake, a wish to stop and a
guard's decision end the run; peers of a dead process are killed at once; and what fails at the same
step twice, or more often than the user allows, ends with the cause. With several machines the first
agent that sees a failure decides for all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from fastmix_mega.errors import EXIT_DECIDED, EXIT_USER_MISTAKE
from fastmix_mega.training.place import (
    PLACES_VARIABLE,
    RESTARTED,
    RESTARTS_VARIABLE,
    RunPlace,
    read_place,
)
from fastmix_mega.training.stop import EXIT_STOPPED, SIGNALS

WINDOW_SECONDS = 3600.0
ON_PURPOSE = (EXIT_USER_MISTAKE, EXIT_DECIDED, EXIT_STOPPED)
"""Exit codes of a process that has said all there is to say."""
BY_SIGNAL = {*(-number for number in SIGNALS), *(128 + number for number in SIGNALS)}
"""Exit codes of a process that was asked to end before it could listen."""
HEARD_SECONDS = 10.0
"""For the launchers of other machines to hear of a verdict."""
SHUTDOWN_SECONDS = 30
"""For processes that end by themselves, to write what they have."""


@dataclass(frozen=True)
class Failure:
    """The first process that failed, and where it was."""

    rank: int
    host: str
    code: int
    """The exit code; minus the signal's number if one killed it."""
    cause: str
    trace: str
    """Of its stack; empty where nobody knows it."""
    place: RunPlace

    def __str__(self) -> str:
        where = f" {self.place}" if self.place.run_dir else ""
        if self.code < 0:
            return f"rank {self.rank} was killed by {self.cause}{where}"
        return f"rank {self.rank} failed{where}: {self.cause}"


@dataclass(frozen=True)
class Verdict:
    """What is done after a failure; the same on every machine."""

    failure: Failure
    refused: str
    """Why the run is not started again; empty if it is."""


@dataclass
class Restarts:
    """The restarts of one launch, and the rule for the next one.

    Args:
        limit: within an hour.
    """

    limit: int
    failures: list[tuple[float, Failure]] = field(default_factory=list)
    """With the seconds at which they were seen, by a clock that nobody sets."""

    def refusal(self, failure: Failure, asked: bool, now: float) -> str:
        """Why the run is not started again; empty if it may be.

        Args:
            failure: what happened.
            asked: whether somebody wants the run to stop.
            now: seconds.
        """
        if failure.code in ON_PURPOSE:
            return "it ended on purpose"
        if asked or failure.code in BY_SIGNAL:
            return "it was asked to stop"
        if self.limit == 0:
            return "--max-restarts is 0"
        if any(earlier.place == failure.place for _, earlier in self.failures):
            return "it has failed there before"
        recent = sum(now - seen < WINDOW_SECONDS for seen, _ in self.failures)
        if recent >= self.limit:
            return f"{recent} restart(s) within an hour are enough (--max-restarts)"
        return ""

    def count(self, failure: Failure, now: float) -> None:
        """The run is started again after this."""
        self.failures.append((now, failure))

    def events(self) -> list[dict[str, Any]]:
        """Lines for the runs' events.jsonl."""
        return [
            {
                "step": each.place.step,
                "kind": RESTARTED,
                "rank": each.rank,
                "host": each.host,
                "cause": each.cause,
                "phase": each.place.phase,
                "run_dir": each.place.run_dir,
                "id": f"{each.host} {seen:.3f}",
            }
            for seen, each in self.failures
        ]


def first_failure(
    failures: dict[int, ProcessFailure], places: Path, run_dir: str
) -> Failure | None:
    """Of processes that ended about the same time: killed ones fail by themselves, peers later."""
    if not failures:
        return None
    rank = min(failures, key=lambda each: (failures[each].exitcode >= 0, failures[each].timestamp))
    found = failures[rank]
    told = found.error_file_data.get("message")
    extra = told.get("extraInfo", {}) if isinstance(told, dict) else {}
    code = int(found.exitcode)
    if code < 0:
        cause = signal.Signals(-code).name
    else:
        cause = str(told["message"]) if isinstance(told, dict) else f"exit code {code}"
    return Failure(
        rank,
        socket.gethostname(),
        code,
        cause,
        "" if code < 0 else str(extra.get("py_callstack", "")),
        read_place(places, rank, run_dir),
    )


def _lost_launcher(error: RuntimeError) -> Failure:
    """What an agent knows when the store of all agents is gone."""
    cause = f"the launcher of the first machine does not answer ({str(error).splitlines()[0]})"
    return Failure(0, socket.gethostname(), 1, cause, "", RunPlace("", 0, ""))


def exit_code_of(pid: int) -> int | None:
    """Of a child that nobody has waited for yet, which stays so; None while it lives.

    Minus the signal's number if one killed it; 0 where torch has waited for it already.
    """
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


class HealingAgent(LocalElasticAgent):
    """Starts a machine's processes, and again after a failure that a restart may heal.

    Args:
        run_dir: of the run.
        limit: restarts within an hour; 0 for none.
        stop_file: which is there when somebody wants the run to stop; the processes' places are
            kept beside it.
        agent: options of torch's agent.
    """

    def __init__(self, run_dir: str, limit: int, stop_file: Path, **agent: Any) -> None:
        super().__init__(**agent)
        self._run_dir = run_dir
        self._stop_file = stop_file
        self._places = stop_file.parent / "places"
        self._before = [
            row | {"run_dir": run_dir}
            for row in json.loads(os.environ.get(RESTARTS_VARIABLE, "[]"))
            if "run_dir" not in row
        ]
        """By whoever started this launcher: what Slurm's job has been through."""
        self._restarts = Restarts(limit)
        self._starts = 0
        self._done: RunResult | None = None
        self.verdict: Verdict | None = None
        """Of the last failure."""

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self._starts += 1
        self._done = None
        self._places.mkdir(exist_ok=True)
        for path in self._places.iterdir():
            path.unlink()
        os.environ[PLACES_VARIABLE] = str(self._places)
        os.environ[RESTARTS_VARIABLE] = json.dumps([*self._before, *self._restarts.events()])
        found: dict[int, Any] = super()._start_workers(worker_group)
        return found

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        dead = self._end_peers_of_the_dead(worker_group)
        result = self._done or super()._monitor_workers(worker_group)
        failed = result.state in (WorkerState.FAILED, WorkerState.UNHEALTHY)
        own = first_failure(dead or result.failures, self._places, self._run_dir)
        verdict = self._agree(worker_group, own) if failed or self._is_one_of_several else None
        if verdict is None:
            return self._wait_for_others(worker_group, result)
        self.verdict = verdict
        if verdict.refused:
            self._remaining_restarts = 0
            self._wait_until_heard(worker_group)
        else:
            self._restarts.count(verdict.failure, time.monotonic())
        self._tell(verdict)
        return RunResult(state=WorkerState.FAILED, failures=result.failures)

    def _end_peers_of_the_dead(self, worker_group: WorkerGroup) -> dict[int, ProcessFailure]:
        """Before torch looks, which would give them time to end by themselves.

        Returns:
            By rank, the processes that were found dead: their peers' ends tell nothing.
        """
        assert self._pcontext is not None
        pids = self._pcontext.pids()
        codes = {number: exit_code_of(pid) for number, pid in pids.items()}
        dead = {number: code for number, code in codes.items() if code}
        if not dead or any(code in ON_PURPOSE for code in dead.values()):
            return {}
        for number, pid in pids.items():
            if codes[number] is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        files = self._pcontext.error_files
        return {
            worker_group.workers[number].global_rank: ProcessFailure(
                number, pids[number], code, files[number]
            )
            for number, code in dead.items()
        }

    def _stop_workers(self, worker_group: WorkerGroup) -> None:
        del worker_group
        orderly = self.verdict is None or self.verdict.failure.code in ON_PURPOSE
        # Peers of a dead process have nothing to save, and may wait for it for ever.
        self._shutdown(signal.SIGTERM if orderly else signal.SIGKILL, SHUTDOWN_SECONDS)

    @property
    def _is_one_of_several(self) -> bool:
        return int(self._worker_group.group_world_size or 1) > 1

    def _agree(self, worker_group: WorkerGroup, own: Failure | None) -> Verdict | None:
        """What the first agent that saw a failure of this start has decided; None if none did.

        Args:
            worker_group: with the store of all agents.
            own: what has failed here.
        """
        decided = None
        if own is not None:
            refused = self._restarts.refusal(own, self._stop_file.exists(), time.monotonic())
            decided = Verdict(own, refused)
        if not self._is_one_of_several:
            return decided
        key, store = f"fastmix-verdict-{self._starts}", worker_group.store
        assert store is not None
        try:
            if decided is not None:
                text = store.compare_set(key, "", json.dumps(asdict(decided)))
            elif store.check([key]):
                text = store.get(key)
            else:
                return None
            store.add(f"fastmix-heard-{self._starts}", 1)
        except RuntimeError as error:
            return decided or Verdict(_lost_launcher(error), "nothing goes on without it")
        told = json.loads(text)
        place = RunPlace(**told["failure"].pop("place"))
        return Verdict(Failure(place=place, **told["failure"]), told["refused"])

    def _wait_until_heard(self, worker_group: WorkerGroup) -> None:
        """The store of all agents lives in the first: it stays until they know the verdict."""
        store, size = worker_group.store, int(worker_group.group_world_size or 1)
        end = time.monotonic() + HEARD_SECONDS
        while self._is_one_of_several and worker_group.group_rank == 0 and time.monotonic() < end:
            assert store is not None
            if store.add(f"fastmix-heard-{self._starts}", 0) >= size:
                break
            time.sleep(0.05)

    def _wait_for_others(self, worker_group: WorkerGroup, result: RunResult) -> RunResult:
        """Several agents are done when all are: what fails elsewhere starts all again."""
        if result.state is not WorkerState.SUCCEEDED or not self._is_one_of_several:
            return result
        key, store = f"fastmix-done-{self._starts}", worker_group.store
        assert store is not None
        done = store.add(key, 0 if self._done else 1)
        self._done = result
        if done < int(worker_group.group_world_size or 1):
            return RunResult(state=WorkerState.HEALTHY)
        return result

    def _tell(self, verdict: Verdict) -> None:
        failure, lines = verdict.failure, []
        if not verdict.refused:
            made = len(self._restarts.failures)
            lines.append(f"{failure}; restart {made}, from the last checkpoint if there is one")
        elif failure.code not in ON_PURPOSE:
            if failure.trace:
                lines.append(f"rank {failure.rank} on {failure.host}:\n{failure.trace}")
            if self._run_dir:
                lines.append(f"{failure}; not started again: {verdict.refused}")
                lines.append("start again to go on from the last checkpoint")
            else:
                lines.append(str(failure))
        if lines:
            print("\n".join(lines), file=sys.stderr, flush=True)
