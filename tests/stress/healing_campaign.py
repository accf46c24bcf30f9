"""Does a launch heal itself, whatever happens to its processes? Hurt it again and again, compare.

    python -m tests.stress.healing_campaign --faults 40 --seed 1

A search on two processes is run once without faults. Then, for every fault, it is launched in a
fresh run folder, and one of its processes or all are killed (at a known place of
tests/stress/fault_campaign.py, or at a random moment), or one raises an error, or one is stopped
(SIGSTOP), which the watchdog must find. Nobody starts it again: the launcher must, and the run must
end with the same losses, mixtures and mixture.json to the last bit. Every tenth time the launcher
is torchrun, cold. Exit code 1 if any run did not.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fastmix_mega.cli.launch import Healing, run_processes
from fastmix_mega.files import read_jsonl
from tests import faulty, ranks
from tests.launch import clean_environment
from tests.stress.fault_campaign import (
    LAUNCHER_EVERY,
    LIMIT_SECONDS,
    PLACES,
    PROCESSES,
    outcome,
    run_whole,
    write_config,
)
from tests.tiny import write_corpora

CALLS = {**PLACES, "raise": 24}
"""Faults at a place, and how often each rank comes past it, at least."""
HANG_MINUTES = 0.1


@dataclass(frozen=True)
class Fault:
    """At a place (`count` is the call), or after some seconds of training."""

    kind: str
    """Of `CALLS`, or `kill at a moment`, `stop at a moment`, `torchrun`."""
    victim: str
    """A rank, or `all`."""
    count: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        when = f"call {self.count}" if self.count else f"after {self.seconds:.2f} s"
        return f"{self.kind} of {self.victim} ({when})"


def plan(count: int, seed: int, seconds: float) -> list[Fault]:
    """Faults of all kinds in turn.

    Args:
        count: of faults.
        seed: of the dice.
        seconds: in which a run trains.
    """
    dice = random.Random(seed)
    kinds = [*CALLS, "kill at a moment", "stop at a moment", "kill at a moment"]
    faults = []
    for number in range(count):
        victim = dice.choice(("0", "1", "all"))
        kind = kinds[number % len(kinds)]
        if number % LAUNCHER_EVERY == LAUNCHER_EVERY - 1:
            place = dice.choice([name for name in PLACES if name != "kill-start"])
            faults.append(Fault(f"torchrun, {place}", victim, dice.randint(1, PLACES[place])))
        elif kind in CALLS:
            faults.append(Fault(kind, victim, dice.randint(1, CALLS[kind])))
        else:
            one = dice.choice(("0", "1")) if kind.startswith("stop") else victim
            faults.append(Fault(kind, one, seconds=dice.uniform(0, seconds)))
    return faults


def launch(config: Path, faults: str) -> int:
    """The launcher, in a fork of this process; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(config.parent / "launch.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ |= {"FAULT": faults}
        healing = Healing(str(config.parent / "run"))
        words = ["search", str(config), f"guards.hang_minutes={HANG_MINUTES}"]
        code = run_processes(faulty.main, words, PROCESSES, healing=healing)
    finally:
        sys.stderr.flush()
        os._exit(code)


def hurt(config: Path, launcher: int, fault: Fault) -> None:
    """Wait for the moment, then kill or stop."""
    metrics = config.parent / "run" / "metrics.jsonl"
    end = time.monotonic() + LIMIT_SECONDS
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(fault.seconds)
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    workers = sorted(map(int, children))
    chosen = workers if fault.victim == "all" else workers[int(fault.victim) :][:1]
    for pid in chosen:
        number = signal.SIGSTOP if fault.kind.startswith("stop") else signal.SIGKILL
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def run_hurt(config: Path, fault: Fault) -> int:
    """Returns the launcher's exit code."""
    if fault.kind.startswith("torchrun"):
        place = fault.kind.removeprefix("torchrun, ")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={PROCESSES}", "--max-restarts=3", "-m", "tests.faulty"]
        with (config.parent / "launch.log").open("w") as log:
            return subprocess.run(
                [*command, "search", str(config)],
                env=clean_environment() | {"FAULT": f"{place}:{fault.victim}:{fault.count}"},
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_SECONDS,
            ).returncode
    at_place = f"{fault.kind}:{fault.victim}:{fault.count}" if fault.count else ""
    launcher = launch(config, at_place)
    if not at_place:
        hurt(config, launcher, fault)
    return ranks.supervise([launcher])


def restarts_of(run_dir: Path) -> int:
    rows = read_jsonl(run_dir / "metrics.jsonl")
    return max(row["restarts"] for row in rows if "restarts" in row)


def campaign(faults: int, seed: int, directory: Path) -> int:
    """Returns how many runs did not end like the uninterrupted one."""
    corpora = directory / "corpora"
    corpora.mkdir()
    write_corpora(corpora)
    whole = write_config(directory / "whole", corpora)
    started = time.monotonic()
    run_whole(whole, launcher=False)
    expected, seconds = outcome(directory / "whole" / "run"), time.monotonic() - started
    print(f"without a fault: {seconds:.1f} s", flush=True)
    met, wrong = Counter[str](), 0
    for number, fault in enumerate(plan(faults, seed, seconds / 2), start=1):
        config = write_config(directory / str(number), corpora)
        started = time.monotonic()
        code = run_hurt(config, fault)
        run_dir = directory / str(number) / "run"
        equal = code == 0 and outcome(run_dir) == expected
        restarts = restarts_of(run_dir) if code == 0 else -1
        wrong += not equal
        met[f"{fault.kind}: {restarts} restart(s)"] += 1
        said = "equal" if equal else f"DIFFERENT (exit code {code}), kept in {config.parent}"
        if equal:
            shutil.rmtree(config.parent)
        took = time.monotonic() - started
        print(f"{number:3d} {fault}: {restarts} restart(s), {took:.1f} s, {said}", flush=True)
    print(f"{faults} faults (seed {seed}), {wrong} different; {dict(sorted(met.items()))}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    ranks.warm_up()
    directory = Path(tempfile.mkdtemp(prefix="fastmix-healing-"))
    wrong = campaign(options.faults, options.seed, directory)
    if not wrong:
        shutil.rmtree(directory)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
