"""Does a search survive kill -9 anywhere? Kill it again and again, resume it, compare bit for bit.

    python -m tests.stress.fault_campaign --kills 50 --seed 1

A search on two processes over tiny corpora is run once without faults. Then, for every kill, it is
started in a fresh run folder and killed, half of the time at a random moment of its life and half
at a known place (start-up, a step, an outer step, writing a checkpoint, sealing it), one rank or
all; every tenth time under torchrun, which is killed as well (the other ranks are forked from here,
to save the imports). It is started again and must end with the same losses, mixtures
and mixture.json to the last bit. Exit code 1 if any did not.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests import ranks
from tests.launch import clean_environment
from tests.stress.campaign_command import Range, run_campaign
from tests.stress.hurts import HURTS
from tests.stress.layouts import LAYOUTS, outcome, write_all_corpora, write_config

LAYOUT = LAYOUTS["ZeRO 1"]
LAUNCHER_EVERY = 10
"""Every so many kills the run is started cold under torchrun, which is killed as well."""
LIMIT_SECONDS = 300.0
PLACES = ("kill-start", "kill-step", "kill-outer", "kill-save", "kill-seal")
"""Kinds of tests/faulty.py."""


@dataclass(frozen=True)
class Kill:
    """One fault: at a place, or after some seconds."""

    victim: str
    """`rank 0`, `rank 1`, `all ranks` or `all and the launcher`."""
    place: str
    """A kind of tests/faulty.py, or `moment`."""
    count: int = 1
    seconds: float = 0.0

    def __str__(self) -> str:
        when = f"after {self.seconds:.2f} s" if self.place == "moment" else f"call {self.count}"
        return f"{self.place} ({when}) of {self.victim}"


def plan(seed: int, number: int, forked: float, launched: float) -> Kill:
    """Kills at places in turn, and at moments between the start and the end of a run.

    Args:
        seed: of the dice.
        number: of the kill.
        forked: seconds of a forked run.
        launched: seconds of one under the launcher.
    """
    dice = random.Random(f"{seed}/{number}")
    if number % LAUNCHER_EVERY == LAUNCHER_EVERY - 1:
        return Kill("all and the launcher", "moment", seconds=dice.uniform(0, launched))
    victim = dice.choice(("rank 0", "rank 1", "all ranks"))
    if number % 2:
        return Kill(victim, "moment", seconds=dice.uniform(0, forked))
    place = PLACES[number // 2 % len(PLACES)]
    return Kill(victim, place, dice.randint(1, HURTS[place].calls))


def run_under_launcher(config: Path, seconds: float | None = None) -> bool:
    """A cold start under torchrun, all of it killed after some seconds; whether it ended well."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(
                "--nproc-per-node",
                str(LAYOUT.processes),
                "-m",
                "fastmix_mega",
                "search",
                str(config),
            ),
        ],
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if seconds is not None:
        time.sleep(seconds)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = children.read_text().split() if children.exists() else []
        ranks.kill(process.pid, *map(int, workers))
    return process.wait(timeout=LIMIT_SECONDS) == 0


def run_forked(config: Path, fault: str = "", victim: str = "", seconds: float = 0.0) -> bool:
    """Run all ranks, with a fault or a kill after some seconds; whether all ended well."""
    log = config.parent / "ranks.log"
    pids = ranks.start(["search", str(config)], LAYOUT.processes, log, fault)
    if victim:
        time.sleep(seconds)
        ranks.kill(*(pids if victim == "all ranks" else [pids[int(victim[-1])]]))
    return ranks.supervise(pids) == 0


def run_killed(config: Path, planned: Kill) -> bool:
    """Returns whether the kill met a living run."""
    if planned.victim == "all and the launcher":
        return not run_under_launcher(config, planned.seconds)
    if planned.place == "moment":
        return not run_forked(config, victim=planned.victim, seconds=planned.seconds)
    rank = "all" if planned.victim == "all ranks" else planned.victim[-1]
    return not run_forked(config, f"{planned.place}:{rank}:{planned.count}")


def run_whole(config: Path, launcher: bool) -> None:
    """Run without faults.

    Raises:
        RuntimeError: if it failed.
    """
    if not (run_under_launcher(config) if launcher else run_forked(config)):
        log = config.parent / "ranks.log"
        shown = log.read_text()[-4000:] if log.exists() else ""
        raise RuntimeError(f"a run without a fault failed:\n{shown}")


def campaign(chosen: Range, directory: Path) -> int:
    """Returns how many resumed runs did not end like the uninterrupted one."""
    corpora = directory / "corpora"
    write_all_corpora(corpora)
    seconds = []
    for launcher in (True, False):
        started = time.monotonic()
        run_whole(write_config(directory / f"whole-{launcher}", corpora, LAYOUT), launcher)
        seconds.append(time.monotonic() - started)
    expected = outcome(directory / "whole-True" / "run")
    launched, forked = seconds
    print(f"without a kill: {launched:.1f} s under the launcher, {forked:.1f} s forked", flush=True)
    met, done, wrong = Counter[str](), 0, 0
    for number in chosen:
        planned = plan(chosen.seed, number, forked, launched)
        if not chosen.has(planned):
            continue
        config = write_config(directory / str(number), corpora, LAYOUT)
        killed = run_killed(config, planned)
        try:
            run_whole(config, planned.victim == "all and the launcher")
            equal = outcome(directory / str(number) / "run") == expected
        except RuntimeError as failed:
            print(failed, flush=True)
            equal = False
        done, wrong = done + 1, wrong + (not equal)
        if equal:
            shutil.rmtree(directory / str(number))
        met[planned.place if killed else "too late: the run had ended"] += 1
        said = "equal" if equal else f"DIFFERENT, kept in {directory / str(number)}"
        print(f"{number:3d} {planned}: {'killed' if killed else 'ended'}, {said}", flush=True)
    print(f"{done} kills (seed {chosen.seed}), {wrong} different; by place: {dict(met)}")
    return wrong


if __name__ == "__main__":
    sys.exit(run_campaign(campaign, __doc__ or "", "kills", 50))
