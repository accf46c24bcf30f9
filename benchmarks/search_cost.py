"""What does the search cost on top of the training it contains? Ratio of times, runs in turn.

    python -m benchmarks.search_cost configs/demo.yaml --nproc 2 --repeats 3 --steps 120

Trains the same tokens on the same layout with `fastmix train` and with `fastmix search`, in turn,
and compares the seconds per step after the warm-up (start-up, evaluation and checkpoints left
out). Prints each pair's ratio, their median and their range.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from fastmix_mega.config import load_config
from fastmix_mega.files import read_jsonl


def seconds_per_step(verb: str, config: str, processes: int, overrides: list[str]) -> float:
    """Median over the logged intervals after the search's warm-up; each is whole outer steps."""
    with tempfile.TemporaryDirectory() as directory:
        settings = load_config(config, overrides)
        every, warmup = settings.search.every, settings.search.warmup
        command = [
            *(sys.executable, "-m", "fastmix_mega", verb, config, "--nproc", str(processes)),
            *(f"run_dir={directory}/run", "log.wandb=disabled", f"log.every={every}"),
            *("evaluation.sets=[]", "checkpoint.every=0", "checkpoint.final=false", *overrides),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows = read_jsonl(Path(directory) / "run" / "metrics.jsonl")
    batch = settings.train.global_batch * settings.train.seq_length
    return statistics.median(batch / r["tokens_per_second"] for r in rows if r["step"] > warmup)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", help="key.path=value, for both runs")
    parser.add_argument("--nproc", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args()
    overrides = [f"train.steps={options.steps}", *options.overrides]
    ratios = []
    for repeat in range(options.repeats):
        train = seconds_per_step("train", options.config, options.nproc, overrides)
        search = seconds_per_step("search", options.config, options.nproc, overrides)
        ratios.append(search / train)
        print(
            f"pair {repeat + 1}: train {train * 1e3:.1f} ms/step, search {search * 1e3:.1f} "
            f"ms/step, ratio {ratios[-1]:.3f}",
            flush=True,
        )
    print(
        f"search / train: median {statistics.median(ratios):.3f}, range {min(ratios):.3f} to "
        f"{max(ratios):.3f} ({options.repeats} pairs, {options.nproc} process(es) on "
        f"{os.cpu_count()} cores, {options.config} {' '.join(options.overrides)})"
    )


if __name__ == "__main__":
    main()
