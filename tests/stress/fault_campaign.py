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

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

from fastmix_mega.files import read_jsonl
from tests import ranks
from tests.launch import clean_environment
from tests.tiny import tiny_settings, write_corpora

PROCESSES = 2
LAUNCHER_EVERY = 10
"""Every so many kills the run is started cold under torchrun, which is killed as well."""
LIMIT_SECONDS = 300.0
PLACES = {"kill-start": 1, "kill-step": 24, "kill-outer": 5, "kill-save": 10, "kill-seal": 10}
"""Kinds of tests/faulty.py, and how often each rank comes past each, at least."""
CHANGING = ("tokens_per_second", "ranks", "restarts")


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


def plan(count: int, seed: int, forked: float, launched: float) -> list[Kill]:
    """Kills at places in turn, and at moments between the start and the end of a run.

    Args:
        count: of kills.
        seed: of the dice.
        forked: seconds of a forked run.
        launched: seconds of one under the launcher.
    """
    dice = random.Random(seed)
    kills = []
    for number in range(count):
        if number % LAUNCHER_EVERY == LAUNCHER_EVERY - 1:
            seconds = dice.uniform(0, launched)
            kills.append(Kill("all and the launcher", "moment", seconds=seconds))
        elif number % 2:
            seconds = dice.uniform(0, forked)
            victim = dice.choice(("rank 0", "rank 1", "all ranks"))
            kills.append(Kill(victim, "moment", seconds=seconds))
        else:
            place = list(PLACES)[number // 2 % len(PLACES)]
            victim = dice.choice(("rank 0", "rank 1", "all ranks"))
            kills.append(Kill(victim, place, dice.randint(1, PLACES[place])))
    return kills


def run_under_launcher(config: Path, seconds: float | None = None) -> bool:
    """A cold start under torchrun, all of it killed after some seconds; whether it ended well."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(PROCESSES), "-m", "fastmix_mega", "search", str(config)),
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
    pids = ranks.start(["search", str(config)], PROCESSES, log, fault)
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


def outcome(run_dir: Path) -> dict[str, object]:
    """What must be equal bit for bit (times and speeds differ)."""
    metrics = read_jsonl(run_dir / "metrics.jsonl")
    history = read_jsonl(run_dir / "history.jsonl")
    return {
        "metrics": [without_times(row) for row in metrics],
        "history": [{**row, "seconds": 0} for row in history],
        "mixture.json": (run_dir / "mixture.json").read_text(),
        "partial": sorted(path.name for path in (run_dir / "checkpoints").glob("*.partial")),
    }


def without_times(row: dict[str, object]) -> dict[str, object]:
    """A line of metrics.jsonl without what another start may change."""
    return {name: value for name, value in row.items() if name not in CHANGING}


def write_config(directory: Path, corpora: Path) -> Path:
    directory.mkdir()
    settings = tiny_settings(corpora, directory / "run")
    held_out = {key: settings["targets"][1][key] for key in ("name", "prefix")}
    settings["evaluation"] = {"every": 8, "sequences": 8, "sets": [held_out]}
    settings["checkpoint"] = {"every": 5, "keep": 2}
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def campaign(kills: int, seed: int, directory: Path) -> int:
    """Returns how many resumed runs did not end like the uninterrupted one."""
    corpora = directory / "corpora"
    corpora.mkdir()
    write_corpora(corpora)
    seconds = []
    for launcher in (True, False):
        started = time.monotonic()
        run_whole(write_config(directory / f"whole-{launcher}", corpora), launcher)
        seconds.append(time.monotonic() - started)
    expected = outcome(directory / "whole-True" / "run")
    launched, forked = seconds
    print(f"without a kill: {launched:.1f} s under the launcher, {forked:.1f} s forked", flush=True)
    met, wrong = Counter[str](), 0
    for number, planned in enumerate(plan(kills, seed, forked, launched), start=1):
        config = write_config(directory / str(number), corpora)
        killed = run_killed(config, planned)
        try:
            run_whole(config, planned.victim == "all and the launcher")
            equal = outcome(directory / str(number) / "run") == expected
        except RuntimeError as failed:
            print(failed, flush=True)
            equal = False
        wrong += not equal
        if equal:
            shutil.rmtree(directory / str(number))
        met[planned.place if killed else "too late: the run had ended"] += 1
        said = "equal" if equal else f"DIFFERENT, kept in {directory / str(number)}"
        print(f"{number:3d} {planned}: {'killed' if killed else 'ended'}, {said}", flush=True)
    print(f"{kills} kills (seed {seed}), {wrong} different; by place: {dict(met)}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    ranks.warm_up()
    directory = Path(tempfile.mkdtemp(prefix="fastmix-campaign-"))
    wrong = campaign(options.kills, options.seed, directory)
    if not wrong:
        shutil.rmtree(directory)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
