"""Goal 2: 8 sources against 1,000 sources.

    python -m benchmarks.many_sources [--budget 120] [--sources 1000]

One process holds two searches of the demo's size over the same number of tokens a step, one with 8
sources, one with many; windows of steps (scores, target gradient and update included) alternate.
Besides: start-up (imports, check, opening all files), a trajectory's update, memory, open files,
and the report of a search with as many sources and 400 outer steps (an invented history).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search_cost import SIZES, Windows, set_size
from benchmarks.timing import (
    Row,
    Span,
    alternate,
    one_thread,
    parser,
    ratio_row,
    ratios,
    tell,
    timed,
)

FEW = 8


def write_sources(folder: Path, count: int) -> None:
    """The tests' tokenizer and targets, and `count` small sources of their own."""
    from fastmix_mega.data.indexed_format import token_dtype
    from fastmix_mega.data.indexed_writer import IndexedWriter
    from fastmix_mega.data.tokenizer import Tokenizer
    from tests.tiny import write_corpora

    write_corpora(folder)
    tokenizer = Tokenizer(folder / "tokenizer.model")
    manifest = {"tokenizer_sha256": tokenizer.sha256, "vocab_size": tokenizer.vocab_size}
    random = np.random.default_rng(0)
    for number in range(count):
        with IndexedWriter(folder / f"s{number}", token_dtype(300), manifest) as writer:
            for _ in range(20):
                writer.add_document(random.integers(3, 290, 100))


def settings_of(folder: Path, count: int) -> dict[str, Any]:
    from tests.tiny import tiny_settings

    settings = tiny_settings(folder, folder / f"run-{count}")
    settings["sources"] = [
        {"name": f"s{number}", "prefix": str(folder / f"s{number}")} for number in range(count)
    ]
    set_size(settings, "demo", {})
    settings["log"]["every"] = 10
    return settings


def start_up(folder: Path, count: int) -> dict[str, float]:
    """In a process of its own: what a start costs with so many sources."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.many_sources", "--start-up", str(folder), str(count)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_start_up(folder: Path, count: int) -> None:
    from fastmix_mega.cli.imports import import_libraries
    from fastmix_mega.configuration import parse_config
    from fastmix_mega.data.run_inputs import open_inputs
    from fastmix_mega.planning.check import check, require_no_mistakes

    config = parse_config(settings_of(folder, count))
    require_no_mistakes(check(config, 1))
    import_libraries()
    before = resident()
    inputs = open_inputs(config)
    assert len(inputs.sources) == count
    used = time.process_time()
    files = len(os.listdir("/proc/self/fd"))
    print(json.dumps({"cpu": used, "megabytes": resident() - before, "files": files}))


def resident() -> float:
    """Megabytes."""
    words = Path("/proc/self/statm").read_text().split()
    return int(words[1]) * resource.getpagesize() / 1e6


def controller_seconds(count: int) -> list[float]:
    """Of updates late in a search, in processor time."""
    from fastmix_mega.config.sections import SearchSection
    from fastmix_mega.methods.start import STEP
    from fastmix_mega.mixture.exponentiated_gradient import ExponentiatedGradient, RuleSettings

    random = np.random.default_rng(0)
    search = SearchSection()
    settings = RuleSettings(STEP, search.decay, search.prior_strength)
    controller = ExponentiatedGradient(np.full(count, 1 / count), settings)
    seconds = []
    for _ in range(300):
        counts = random.integers(0, 3, count).astype(float)
        values = random.normal(size=count) * counts
        sums = np.stack((values, values**2 + counts, counts, counts))
        seconds.append(timed(lambda: controller.update(sums)).cpu)  # noqa: B023
    return sorted(seconds[-100:])


def report_row(folder: Path, count: int) -> Row:
    from fastmix_mega.report.build import build_report
    from tests.fastmix_mega.report.samples import write_run

    names = tuple(f"s{number}" for number in range(count))
    directory = write_run(folder / "report", names, outer_steps=400)
    span = timed(lambda: build_report(directory))
    read = sum(each.stat().st_size for each in directory.glob("*.jsonl")) / 1e6
    size = (directory / "report.html").stat().st_size / 1e6
    text = f"{size:.1f} MB, {span.cpu:.1f} s of processor time from {read:.0f} MB of records"
    return Row(2, f"report of {count:,} sources, 400 outer steps", "", text)


def measure(count: int, budget: float) -> list[Row]:
    from fastmix_mega.config.sections import ParallelSection
    from fastmix_mega.configuration import parse_config
    from fastmix_mega.methods.registry import method_of
    from fastmix_mega.parallel import layout as parallel_layout
    from fastmix_mega.training.trainer import Trainer

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sources(folder, count)
        few, many = [], []
        for _ in range(3):
            few.append(start_up(folder, FEW))
            many.append(start_up(folder, count))
        starts = [[Span(each["cpu"], each["cpu"]) for each in side] for side in (few, many)]
        cpu, _ = ratios(starts[1], starts[0])
        what = f"start-up (imports, check, opening) with {count:,} sources / with {FEW}"
        measured = f"{cpu} of processor time, {cpu.count} pairs"
        rows.append(Row(2, what, "at most 2", measured, cpu.median <= 2))
        more = many[-1]["megabytes"] - few[-1]["megabytes"]
        what = f"memory of {count - FEW:,} more opened sources"
        rows.append(Row(2, what, "at most 100 MB", f"{more:.1f} MB", more <= 100))
        files = many[-1]["files"] - few[-1]["files"]
        rows.append(Row(2, f"file handles of {count - FEW:,} more sources", "", f"{files:.0f}"))
        seconds = controller_seconds(count)
        median = seconds[len(seconds) // 2]
        text = f"{median * 1e3:.2f} ms, slowest of 100 {seconds[-1] * 1e3:.2f} ms"
        rows.append(
            Row(2, f"a trajectory's update, {count:,} sources", "< 5 ms", text, median < 5e-3)
        )
        rows.append(report_row(folder, count))
        with parallel_layout.start(ParallelSection()) as layout:
            trainers = [
                Trainer(method_of(parse_config(settings_of(folder, each))), layout)
                for each in (FEW, count)
            ]
            windows = [Windows(trainer, 8) for trainer in trainers]
            spans = alternate([each.searching for each in windows], 24, budget)
            every = SIZES["demo"]["search"]["every"]
            what = f"a window of {every} steps with {count:,} sources / with {FEW}"
            rows.append(ratio_row(2, what, 1.05, spans[1], spans[0]))
            for trainer in trainers:
                trainer.close()
    return rows


def main() -> None:
    made = parser(__doc__, 120.0)
    made.add_argument("--sources", type=int, default=1000)
    made.add_argument("--start-up", nargs=2, help="used by the benchmark itself")
    options = made.parse_args()
    if options.start_up:
        print_start_up(Path(options.start_up[0]), int(options.start_up[1]))
        return
    one_thread()
    tell(measure(options.sources, options.budget), options.json)


if __name__ == "__main__":
    main()
