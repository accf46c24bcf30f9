"""Do memory and file handles stay flat over a long search? Twenty minutes, sampled.

    python -m tests.stress.soak --minutes 20

A search on two processes that updates, evaluates and saves all the time is watched from outside,
and stopped at the end. Prints, for every process, resident memory and its slope after a warm-up
(least squares, with its standard error), open file handles and threads. Exit code 1 if handles or
threads grew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from fastmix_mega.files import read_jsonl
from fastmix_mega.training.stop import EXIT_STOPPED
from tests.launch import start_fastmix
from tests.tiny import tiny_settings, write_corpora

WARM_UP_SHARE = 0.25
EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Sample:
    seconds: float
    megabytes: float
    handles: int
    threads: int


def sample(pid: int, seconds: float) -> Sample:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    handles = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(seconds, int(status["VmRSS"].split()[0]) / 1024, handles, int(status["Threads"]))


def slope(samples: list[Sample]) -> tuple[float, float]:
    """MB per hour by least squares, and its standard error (samples taken as independent)."""
    hours = np.array([each.seconds for each in samples]) / 3600
    memory = np.array([each.megabytes for each in samples])
    centred = hours - hours.mean()
    rate = float(centred @ memory / (centred @ centred))
    residual = memory - memory.mean() - rate * centred
    variance = float(residual @ residual) / (len(hours) - 2)
    return rate, float(np.sqrt(variance / (centred @ centred)))


def watch(process: subprocess.Popen[str], minutes: float) -> dict[int, list[Sample]]:
    """Sample the launcher and its processes until the time is over."""
    started = time.monotonic()
    samples: dict[int, list[Sample]] = {}
    while (seconds := time.monotonic() - started) < 60 * minutes:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended early:\n{process.communicate()[0][-3000:]}")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (process.pid, *map(int, children)):
            samples.setdefault(pid, []).append(sample(pid, seconds))
        time.sleep(EVERY_SECONDS)
    return samples


def soak(minutes: float, directory: Path) -> bool:
    """Returns whether file handles and threads stayed flat."""
    write_corpora(directory)
    settings = tiny_settings(directory, directory / "run")
    held_out = {key: settings["targets"][1][key] for key in ("name", "prefix")}
    settings["train"]["steps"] = 10**7
    settings["evaluation"] = {"every": 50, "sequences": 8, "sets": [held_out]}
    settings["checkpoint"] = {"every": 100, "keep": 2}
    settings["log"]["every"] = 10
    config = directory / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    output = directory / "output.log"
    process = start_fastmix("search", str(config), "--nproc", "2", output=output)
    try:
        samples = watch(process, minutes)
    finally:
        process.terminate()
        process.wait(timeout=120)
    flat = process.returncode == EXIT_STOPPED
    steps = read_jsonl(directory / "run" / "metrics.jsonl")[-1]["step"]
    outer_steps = read_jsonl(directory / "run" / "history.jsonl")[-1]["outer_step"]
    print(
        f"{minutes:g} minutes, {steps:,} steps, {outer_steps:,} outer steps, {steps // 100} saves"
    )
    for number, (pid, found) in enumerate(samples.items()):
        settled = [each for each in found if each.seconds > 60 * minutes * WARM_UP_SHARE]
        if len(settled) < 10:
            continue  # A helper that came and went.
        rate, error = slope(settled)
        handles = sorted({each.handles for each in settled})
        threads = sorted({each.threads for each in settled})
        flat &= settled[-1].handles <= handles[0] + 2 and settled[-1].threads <= threads[0] + 1
        print(
            f"{'launcher' if number == 0 else f'process {pid}'}: {settled[0].megabytes:.1f} to "
            f"{settled[-1].megabytes:.1f} MB, slope {rate:+.2f} ± {error:.2f} MB/h; handles "
            f"{handles[0]} to {handles[-1]}, threads {threads[0]} to {threads[-1]}"
        )
    return flat


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastmix-soak-") as directory:
        return 0 if soak(options.minutes, Path(directory)) else 1


if __name__ == "__main__":
    sys.exit(main())
