"""Does a run live through whatever happens to it? Hurt it again and again, compare.

    python -m tests.stress.healing_campaign --faults 200 --seed 1
    python -m tests.stress.healing_campaign --faults 200 --only "[TP2]"

Every layout of tests/stress/layouts.py is run once without faults. Then every fault of
tests/stress/hurts.py meets every layout: 180 faults are all pairs. A run that loses a process must
be started again by its launcher, and one whose disk is full or read-only must go on or end with
exit code 1 and a word, and go on when the command is given again. All must end with the same
losses, mixtures, mixture.json and last checkpoint as the uninterrupted run, to the last bit. Small
disks are mounted, which needs root. Exit code 1 if any run did not.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fastmix_mega.cli.launch import Healing, run_processes
from fastmix_mega.files import read_jsonl
from fastmix_mega.training.place import RESTARTED
from fastmix_mega.training.run_lock import run_lock
from tests import faulty, ranks
from tests.launch import clean_environment
from tests.stress.campaign_command import Range, in_forks, run_campaign
from tests.stress.hurts import HURTS, LIMIT_SECONDS, Hurt, Scene, disk, wrong_words
from tests.stress.layouts import LAYOUTS, STEPS, Layout, outcome, write_all_corpora, write_config

HANG_MINUTES = 0.1
TORCHRUN, JUMPING = "torchrun, ", "jumping clock, "
HOURS = 5


@dataclass(frozen=True)
class Fault:
    """One case of the campaign."""

    number: int
    kind: str
    """Of `HURTS`."""
    layout: str
    """Of `LAYOUTS`."""
    victim: str
    """A rank, or `all`."""
    when: int
    """The call of the place, or the logged step after which it comes from outside."""
    seconds: float
    """From that step on, from outside."""

    @property
    def hurt(self) -> Hurt:
        return HURTS[self.kind]

    def __str__(self) -> str:
        when = f"call {self.when}"
        if self.hurt.outside is not None:
            when = f"step {self.when} + {self.seconds:.2f} s"
        return f"{self.number:3d} [{self.layout}] {self.kind} of {self.victim} ({when})"


@dataclass
class Done:
    """What came of some faults."""

    count: int = 0
    wrong: int = 0
    met: Counter[str] = field(default_factory=Counter)
    """By kind and end."""


def fault_of(seed: int, number: int) -> Fault:
    """Kinds and layouts in turn: their counts have no common divisor, which makes all pairs."""
    dice = random.Random(f"{seed}/{number}")
    name = list(LAYOUTS)[number % len(LAYOUTS)]
    kind = list(HURTS)[number % len(HURTS)]
    if kind == "kill-outer" and LAYOUTS[name].verb == "train":
        kind = "kill-step"
    one = str(dice.randrange(LAYOUTS[name].processes))
    victim = one if kind.startswith("stop") else dice.choice((one, one, "all"))
    calls = HURTS[kind].calls
    when = dice.randint(1, calls) if calls else dice.randrange(STEPS)
    return Fault(number, kind, name, victim, when, dice.uniform(0, 0.3))


def launch(config: Path, layout: Layout, kind: str, faults: str) -> int:
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
        if kind.startswith(JUMPING):
            time.time = jumping(time.time)
        words = [layout.verb, str(config)]
        if kind.startswith("stop"):
            words.append(f"guards.hang_minutes={HANG_MINUTES}")
        run_dir = str(config.parent / "run")
        with run_lock(run_dir, f"fastmix {layout.verb}"):
            healing = Healing(run_dir)
            code = run_processes(faulty.main, words, layout.processes, healing=healing)
    finally:
        sys.stderr.flush()
        os._exit(code)


def jumping(clock: Callable[[], float]) -> Callable[[], float]:
    """A clock that goes forward and back by hours, by turns."""
    asked = [0]

    def jump() -> float:
        asked[0] += 1
        return clock() + 3600 * HOURS * (-1) ** asked[0]

    return jump


def run_under_torchrun(config: Path, layout: Layout, faults: str) -> int:
    """Cold, as a user starts it; returns the exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={layout.processes}", "--max-restarts=3", "-m", "tests.faulty"]
    with (config.parent / "launch.log").open("w") as log:
        return subprocess.run(
            [*command, layout.verb, str(config)],
            env=clean_environment() | {"FAULT": faults},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_SECONDS,
        ).returncode


def run_hurt(config: Path, fault: Fault) -> tuple[int, str]:
    """Returns the launcher's exit code, and what was wrong while it ran, if anything."""
    layout, hurt, wrong = LAYOUTS[fault.layout], fault.hurt, ""
    place = f"{fault.kind.split(', ')[-1]}:{fault.victim}:{fault.when}" if hurt.calls else ""
    if fault.kind.startswith(TORCHRUN):
        return run_under_torchrun(config, layout, place), ""
    launcher = launch(config, layout, fault.kind, place)
    if hurt.outside is not None:
        scene = Scene(config, layout, launcher, fault.victim)
        scene.wait_for(fault.when, fault.seconds)
        wrong = hurt.outside(scene)
    return ranks.supervise([launcher], LIMIT_SECONDS), wrong


def restarts_of(run_dir: Path) -> int:
    path = run_dir / "events.jsonl"
    rows = read_jsonl(path) if path.exists() else []
    return sum(row["kind"] == RESTARTED for row in rows)


def judge(config: Path, fault: Fault, expected: dict[str, object]) -> tuple[str, str]:
    """Hurt a run; returns what came of the fault, and what is wrong, if anything."""
    hurt, run_dir = fault.hurt, config.parent / "run"
    with disk(hurt, run_dir):
        code, wrong = run_hurt(config, fault)
        log = (config.parent / "launch.log").read_text()
        restarts = restarts_of(run_dir)
        ended = code in hurt.ends
        wrong = wrong or wrong_words(hurt, log, met=restarts > 0 or ended)
        if hurt.calls and hurt.restarts and not restarts:
            wrong = wrong or "the fault did not strike"
        if restarts and not hurt.restarts:
            wrong = wrong or f"{restarts} restart(s)"
        if ended:
            code = ranks.supervise(
                [launch(config, LAYOUTS[fault.layout], fault.kind, "")], LIMIT_SECONDS
            )
        if code:
            return "failed", wrong or f"exit code {code}"
        found = outcome(run_dir)
    different = [name for name in expected if found[name] != expected[name]]
    if different:
        wrong = wrong or f"{', '.join(different)} differ"
    return "ended, went on" if ended else f"{restarts} restart(s)", wrong


def run_whole(config: Path, layout: Layout) -> dict[str, object]:
    """The outcome without a fault. RuntimeError if the run failed."""
    code = ranks.supervise([launch(config, layout, "", "")], LIMIT_SECONDS)
    if code:
        said = (config.parent / "launch.log").read_text()[-4000:]
        raise RuntimeError(f"a run without a fault ended with {code}:\n{said}")
    return outcome(config.parent / "run")


def hurt_layout(name: str, chosen: Range, directory: Path) -> Done:
    """The faults of one layout, and before them a run without one."""
    layout, corpora = LAYOUTS[name], directory / "corpora"
    whole = write_config(directory / f"whole {name}", corpora, layout)
    expected = run_whole(whole, layout)
    done = Done()
    for fault in (fault_of(chosen.seed, number) for number in chosen):
        if fault.layout != name or not chosen.has(fault):
            continue
        config = write_config(directory / str(fault.number), corpora, layout)
        started = time.monotonic()
        came, wrong = judge(config, fault, expected)
        done.count += 1
        done.wrong += bool(wrong)
        done.met[f"{fault.kind}: {came}"] += 1
        told = f"WRONG: {wrong}, kept in {config.parent}" if wrong else "equal"
        if not wrong:
            shutil.rmtree(config.parent)
        print(f"{fault}: {came}, {time.monotonic() - started:.1f} s, {told}", flush=True)
    return done


def campaign(chosen: Range, directory: Path) -> int:
    """Returns how many runs did not end like the uninterrupted one."""
    write_all_corpora(directory / "corpora")
    faults = [fault_of(chosen.seed, number) for number in chosen]
    names = {fault.layout: None for fault in faults if chosen.has(fault)}
    parts = in_forks(chosen.jobs, list(names), lambda name: hurt_layout(name, chosen, directory))
    met = sum((part.met for part in parts), Counter[str]())
    done, bad = (sum(part.count for part in parts), sum(part.wrong for part in parts))
    print(f"{done} faults (seed {chosen.seed}), {bad} wrong; {dict(sorted(met.items()))}")
    return bad


if __name__ == "__main__":
    sys.exit(run_campaign(campaign, __doc__ or "", "faults", 200))
