"""What does the search cost on top of the training it contains? Ratio of times, windows in turn.

    python -m benchmarks.search_cost configs/demo.yaml --nproc 2 --pairs 20

In one run, windows of `search.every` plain training steps and of the same number of steps with
everything that the search adds (target gradient, scores, all-reduce, update, broadcast) follow one
another. Neighbours are compared, so that a machine whose speed drifts does not matter. Prints the
median of the pairs' ratios with its quartiles, and the parts of the cost.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch.distributed as dist

from fastmix_mega.config import load_config
from fastmix_mega.loop import TrainingLoop
from fastmix_mega.parallel import layout as parallel_layout

WARM_UP_WINDOWS = 3


def measure(config_path: str, overrides: list[str], pairs: int) -> None:
    """The timed part, in every process; rank 0 prints."""
    with tempfile.TemporaryDirectory() as directory:
        steps = (pairs + WARM_UP_WINDOWS + 1) * 64
        settings = [f"run_dir={directory}", "log.wandb=disabled", f"train.steps={steps}"]
        config = load_config(config_path, [*settings, "search.warmup=8", *overrides])
        with parallel_layout.start(config.parallel) as layout:
            loop = TrainingLoop(config, "search", layout)
            outer, every = loop.outer, config.search.every
            assert outer is not None
            for step in range(config.search.warmup):
                loop._train_step(step)
            plain, searched, targets = [], [], []
            first = config.search.warmup
            for _ in range(pairs + WARM_UP_WINDOWS):
                dist.barrier()
                started = time.perf_counter()
                for step in range(first, first + every):
                    loop._train_step(step)
                dist.barrier()
                middle = time.perf_counter()
                for step in range(first, first + every):
                    outer.before_step(step)
                    loop._train_step(step)
                    outer.after_step(step)
                dist.barrier()
                plain.append(middle - started)
                searched.append(time.perf_counter() - middle)
                targets.append(outer.seconds)
                first += every
            loop.close()
            if layout.is_main:
                _print(plain[WARM_UP_WINDOWS:], searched[WARM_UP_WINDOWS:], targets, layout.sizes)


def _print(
    plain: list[float], searched: list[float], targets: list[float], sizes: dict[str, int]
) -> None:
    ratios = [s / p for s, p in zip(searched, plain, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    outer = statistics.median(t / p for t, p in zip(targets[WARM_UP_WINDOWS:], plain, strict=True))
    print(
        f"search / train: median {median:.3f}, quartiles {low:.3f} to {high:.3f} ({len(ratios)} "
        f"pairs of windows); of it outer steps {outer:.3f}, scores in training steps "
        f"{median - 1 - outer:.3f}; window {statistics.median(plain) * 1e3:.0f} ms; layout "
        f"{sizes}, {os.cpu_count()} cores",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", help="key.path=value")
    parser.add_argument("--nproc", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    if "RANK" in os.environ:
        measure(options.config, options.overrides, options.pairs)
        return
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(options.nproc), "-m", "benchmarks.search_cost"),
        *(options.config, *options.overrides, "--pairs", str(options.pairs)),
    ]
    threads = str(max(1, (os.cpu_count() or 1) // options.nproc))
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("search / train")]
    print("\n".join(lines) if done.returncode == 0 else done.stdout)
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
