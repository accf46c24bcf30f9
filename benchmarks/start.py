"""Goal 6: how long until the command answers, and until the first training step.

    python -m benchmarks.start CONFIG [--budget 120]

Cold processes, alternating with the bare interpreter that imports torch: an absolute time on a
shared machine says little, so each is told as seconds and as a multiple of that. The first training
step is the moment at which two processes have it in metrics.jsonl.
"""

from __future__ import annotations

import functools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.timing import Row, Span, Spread, parser, tell


def span_of(action: Callable[[], object]) -> Span:
    """Of an action that starts processes and waits for them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.perf_counter()
    action()
    wall = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Span(wall, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)


def run(*words: str) -> Callable[[], object]:
    def action() -> None:
        subprocess.run([sys.executable, *words], check=True, capture_output=True)

    return action


def first_step(config: str, processes: int) -> float:
    """Seconds from the command to its first step; the run of one step is waited for."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["train.steps=1", "train.schedule.warmup=0", "log.every=1", f"run_dir={folder}"]
        words += ["evaluation.sets=[]", "checkpoint.final=false", "--nproc", str(processes)]
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "fastmix_mega", "train", config, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        metrics = Path(folder) / "metrics.jsonl"
        while not metrics.exists():
            if process.poll() not in (None, 0):
                raise SystemExit("fastmix train failed; run it by hand to see why")
            time.sleep(0.02)
        arrived = time.perf_counter() - began
        process.wait()
    return arrived


def _append(arrived: list[float], config: str) -> None:
    arrived.append(first_step(config, 2))


def measure(config: str, budget: float) -> list[Row]:
    actions: Sequence[tuple[str, Callable[[], object]]] = (
        ("import torch", run("-c", "import torch")),
        ("fastmix --help", run("-m", "fastmix_mega", "--help")),
        ("fastmix check", run("-m", "fastmix_mega", "check", config)),
    )
    spans: dict[str, list[Span]] = {name: [] for name, _ in actions}
    steps: list[tuple[float, Span]] = []
    end = time.perf_counter() + budget
    while not steps or (time.perf_counter() < end and len(steps) < 7):
        for name, action in actions:
            spans[name].append(span_of(action))
        arrived: list[float] = []
        whole = span_of(functools.partial(_append, arrived, config))
        steps.append((arrived[0], whole))
    torch = spans["import torch"]
    rows = []
    for name, most in (("fastmix --help", 0.3), ("fastmix check", 3.0)):
        here = spans[name]
        wall, cpu = (statistics.median(getattr(s, kind) for s in here) for kind in ("wall", "cpu"))
        ratio = Spread.of([s.cpu / t.cpu for s, t in zip(here, torch, strict=True)])
        text = f"{cpu:.2f} s of processor time ({wall:.2f} s of wall time)"
        rows.append(
            Row(6, name, f"under {most:g} s", f"{text}; {ratio} x `import torch`", cpu < most)
        )
    wall = statistics.median(arrived for arrived, _ in steps)
    cpu = statistics.median(span.cpu for _, span in steps)
    ratio = Spread.of([span.cpu / t.cpu for (_, span), t in zip(steps, torch, strict=True)])
    text = (
        f"{wall:.1f} s of wall time; the whole one-step run takes {cpu:.1f} s of processor time in "
        f"all processes, {ratio} x `import torch`"
    )
    # Wall time on an idle machine is less than what all processes together compute.
    rows.append(Row(6, "first training step, 2 processes", "under 15 s", text, min(wall, cpu) < 15))
    torch_cpu = statistics.median(span.cpu for span in torch)
    torch_wall = statistics.median(span.wall for span in torch)
    load = os.getloadavg()[0]
    told = f"{torch_cpu:.2f} s of processor time, {torch_wall:.2f} s of wall time; load {load:.0f}"
    rows.append(Row(6, "`import torch` alone", "", told))
    return rows


def main() -> None:
    made = parser(__doc__, 120.0)
    made.add_argument("config")
    options = made.parse_args()
    tell(measure(options.config, options.budget), options.json)


if __name__ == "__main__":
    main()
