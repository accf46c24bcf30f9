"""Does a search survive kill -9 anywhere? Kill it again and again, resume it, compare bit for bit.

    python -m benchmarks.fault_campaign --kills 50 --seed 1

A search on two processes over tiny corpora is run once without faults. Then, for every kill, it is
started in a fresh run folder and killed, half of the time at a random moment of its life and half
at a known place (start-up, a step, an outer step, writing a checkpoint, sealing it), one rank or
all; or the launcher goes as well. It is started again and must end with the same losses, mixtures
and mixture.json to the last bit. Exit code 1 if any did not.
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

import yaml

from fastmix_mega.files import read_jsonl
from tests.launch import clean_environment
from tests.tiny import tiny_settings, write_corpora

PROCESSES = 2
PLACES = {"kill-start": 1, "kill-step": 24, "kill-outer": 5, "kill-save": 10, "kill-seal": 10}
"""Kinds of tests/faulty.py, and how often each rank comes past each, at least."""


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


def plan(count: int, seed: int, duration: float) -> list[Kill]:
    """Kills at places in turn, and at moments between the start and the end of a run."""
    dice = random.Random(seed)
    kills = []
    for number in range(count):
        if number % 2:
            victims = ("rank 0", "rank 1", "all ranks", "all and the launcher")
            seconds = dice.uniform(0, duration)
            kills.append(Kill(dice.choice(victims), "moment", seconds=seconds))
        else:
            place = list(PLACES)[number // 2 % len(PLACES)]
            victim = dice.choice(("rank 0", "rank 1", "all ranks"))
            kills.append(Kill(victim, place, dice.randint(1, PLACES[place])))
    return kills


def start(config: Path, fault: str = "") -> subprocess.Popen[str]:
    module = "tests.faulty" if fault else "fastmix_mega"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(PROCESSES), "-m", module, "search", str(config)),
        ],
        env=clean_environment() | {"FAULT": fault},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_whole(config: Path) -> float:
    """Run without faults; returns its seconds."""
    started = time.monotonic()
    process = start(config)
    shown, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"a run without a fault failed:\n{shown[-3000:]}")
    return time.monotonic() - started


def run_killed(config: Path, kill: Kill) -> bool:
    """Returns whether the kill met a living run."""
    if kill.place != "moment":
        rank = "all" if kill.victim == "all ranks" else kill.victim.removeprefix("rank ")
        process = start(config, f"{kill.place}:{rank}:{kill.count}")
    else:
        process = start(config)
        time.sleep(kill.seconds)
        for pid in victims(process.pid, kill.victim):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=300)
    return process.returncode != 0


def victims(launcher: int, victim: str) -> list[int]:
    """Process numbers to kill; ranks are started in order."""
    path = Path(f"/proc/{launcher}/task/{launcher}/children")
    ranks = sorted(int(pid) for pid in path.read_text().split()) if path.exists() else []
    if victim == "all and the launcher":
        return [launcher, *ranks]
    if victim == "all ranks":
        return ranks
    number = int(victim.removeprefix("rank "))
    return ranks[number : number + 1]


def outcome(run_dir: Path) -> dict[str, object]:
    """What must be equal bit for bit (times and speeds differ)."""
    metrics = read_jsonl(run_dir / "metrics.jsonl")
    history = read_jsonl(run_dir / "history.jsonl")
    return {
        "metrics": [{**row, "tokens_per_second": 0} for row in metrics],
        "history": [{**row, "seconds": 0} for row in history],
        "mixture.json": (run_dir / "mixture.json").read_text(),
        "partial": sorted(path.name for path in (run_dir / "checkpoints").glob("*.partial")),
    }


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
    duration = run_whole(write_config(directory / "whole", corpora))
    expected = outcome(directory / "whole" / "run")
    print(f"an uninterrupted run: {duration:.1f} s", flush=True)
    met, wrong = Counter[str](), 0
    for number, kill in enumerate(plan(kills, seed, duration), start=1):
        config = write_config(directory / str(number), corpora)
        killed = run_killed(config, kill)
        try:
            run_whole(config)
            equal = outcome(directory / str(number) / "run") == expected
        except RuntimeError as failed:
            print(failed, flush=True)
            equal = False
        wrong += not equal
        if equal:
            shutil.rmtree(directory / str(number))
        met[kill.place if killed else "too late (the run had ended)"] += 1
        said = "equal" if equal else f"DIFFERENT, kept in {directory / str(number)}"
        print(f"{number:3d} {kill}: {'killed' if killed else 'ended'}, {said}", flush=True)
    print(f"{kills} kills (seed {seed}), {wrong} different; by place: {dict(met)}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="fastmix-campaign-"))
    wrong = campaign(options.kills, options.seed, directory)
    if not wrong:
        shutil.rmtree(directory)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
