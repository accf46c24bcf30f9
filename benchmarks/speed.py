"""All short speed benchmarks, one after another, into docs/speed.md: what `make bench` runs.

    python -m benchmarks.speed CONFIG [--minutes 12] [--output docs/speed.md]

Every benchmark is a process of its own with a budget of its own, so that the whole ends; one that
fails or runs over is told as not measured. What the figures mean and what is open stands in
docs/performance.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from benchmarks.timing import Row
from fastmix_mega.parallel.devices import usable_cores

SHARES = {
    "benchmarks.scale_simulation": 0.0,
    "benchmarks.loader": 0.05,
    "benchmarks.start CONFIG": 0.1,
    "benchmarks.search_memory": 0.05,
    "research.score_quality CONFIG": 0.1,
    "benchmarks.many_sources": 0.1,
    "benchmarks.training_speed --size demo": 0.1,
    "benchmarks.search_cost --size demo": 0.2,
    "benchmarks.training_speed --size 10M": 0.1,
    "benchmarks.search_cost --size 100M": 0.2,
}
"""Modules with their arguments, and their part of the time."""
OVERHEAD_SECONDS = 300.0
"""For imports and set-up of one benchmark on a busy machine, before it counts as run over."""
LIBRARIES = ("torch", "deepspeed", "megatron-core", "numpy")


def run(words: list[str], budget: float) -> list[Row] | str:
    """The rows of one benchmark, or why there are none."""
    command = [sys.executable, "-m", *words]
    try:
        done = subprocess.run(
            [*command, "--budget", f"{budget:.0f}", "--json"],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=4 * budget + OVERHEAD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return "it ran over its budget"
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"goal"')]
    if done.returncode and not lines:
        print(done.stderr[-3000:], file=sys.stderr)
        return f"it failed with exit code {done.returncode}"
    return [Row(**json.loads(line)) for line in lines]


def page(rows: list[Row], missing: list[str], commit: str) -> str:
    """Markdown; `commit` is the one that was measured."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    today = datetime.date.today().isoformat()
    lines = [
        "# Speed: measured ratios",
        "",
        "Written by `make bench` (`benchmarks/speed.py`). What the goals mean, and why one is",
        "missed or open: [performance.md](performance.md). Medians with quartiles.",
        "",
        f"{today}, commit {commit or 'unknown'}; {usable_cores()} cores of a {platform.machine()} "
        f"machine, load {os.getloadavg()[0]:.0f} at the end;",
        f"one thread a process; {versions}.",
        "",
        "| goal | what | wanted | measured | |",
        "|---:|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row.goal):
        verdict = {True: "met", False: "missed", None: ""}[row.met]
        lines.append(f"| {row.goal} | {row.what} | {row.wanted} | {row.measured} | {verdict} |")
    lines += ["", *missing] if missing else []
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--minutes", type=float, default=12.0, help="of measuring, about (12)")
    parser.add_argument("--output", type=Path, default=Path("docs/speed.md"))
    options = parser.parse_args()
    head = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True).stdout.strip()
    rows: list[Row] = []
    failed: list[str] = []
    for number, (command, share) in enumerate(SHARES.items()):
        words = [options.config if word == "CONFIG" else word for word in command.split()]
        found = run(words, max(10.0, 60 * options.minutes * share))
        if isinstance(found, str):
            failed.append(f"`{command}` was not measured: {found}.")
            print(failed[-1], flush=True)
            found = []
        rows += found
        for row in found:
            print(f"goal {row.goal}, {row.what}: {row.measured}", flush=True)
        # The page is whole at any time: a run that is cut short leaves what it measured.
        waiting = [f"`{each}` was not reached." for each in [*SHARES][number + 1 :]]
        options.output.write_text(page(rows, [*failed, *waiting], commit))


if __name__ == "__main__":
    main()
