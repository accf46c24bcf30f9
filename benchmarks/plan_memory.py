"""Does `fastmix plan` predict the memory that torch measures?

    python -m benchmarks.plan_memory CONFIG --nproc 2 [--mode train] [--repeat 3] [key=value ...]

Starts the run's processes for three steps, outer steps included, and prints for each process the
measured peak of torch's allocations and the predicted one. On CPU the allocations are recorded by
torch's profiler; on CUDA they are the allocator's own count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEASURED_STEPS = 3


def measure(config_path: str, mode: str, overrides: list[str]) -> dict[str, Any]:
    """Run three steps in this process (of several, under torchrun); returns peak and prediction."""
    import torch

    from fastmix_mega.configuration import load_config
    from fastmix_mega.data.tokenizer import Tokenizer
    from fastmix_mega.model.presets import resolve_shape
    from fastmix_mega.parallel import layout as layouts
    from fastmix_mega.planning.activations import savings_of
    from fastmix_mega.planning.dry_run import method_that_runs
    from fastmix_mega.planning.memory import peak_memory
    from fastmix_mega.training.trainer import Trainer

    method, mode = method_that_runs(load_config(config_path, overrides), mode)
    # With what the method fixes: what its scores look at decides what a search needs.
    config = method.config
    shape = resolve_shape(config.model, Tokenizer(config.tokenizer).vocab_size)
    on_cuda = torch.cuda.is_available()
    with layouts.start(config.parallel) as layout:
        profiler = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        )
        if not on_cuda:
            profiler.start()
        trainer = Trainer(method, layout)
        for step in range(MEASURED_STEPS):
            trainer.mixer.before_step(step)
            trainer._train_step(step)
            trainer.mixer.after_step(step)
        if on_cuda:
            peak = torch.cuda.max_memory_allocated()
        else:
            profiler.stop()
            recorded = profiler.profiler
            assert recorded is not None
            assert recorded.kineto_results is not None
            peak = _highest(recorded.kineto_results.experimental_event_tree())
        predicted = peak_memory(
            config, shape, config.parallel, layout.world.size, mode, savings_of(config, on_cuda)
        )
        peaks: list[int] = [0] * layout.world.size
        torch.distributed.all_gather_object(peaks, peak)
    return {"peaks": peaks, "predicted": predicted.total, "parts": vars(predicted)}


def _highest(events: list[Any]) -> int:
    """Peak of what is allocated, from the profiler's record.

    gloo's threads free memory unseen. The profiler's own running total then stays too high; so does
    a count by address, until the address is given out again. The lower one is nearer the truth.
    """
    live: dict[int, int] = {}
    total = by_address = by_profiler = 0
    for _, address, size, running in sorted(_allocations(events)):
        total -= live.pop(address, 0)
        if size > 0:
            live[address] = size
            total += size
        by_address = max(by_address, total)
        by_profiler = max(by_profiler, running)
    return min(by_address, by_profiler)


def _allocations(events: list[Any]) -> Iterator[tuple[int, int, int, int]]:
    """(time, address, bytes; negative for a release, total) of every event in the tree."""
    for event in events:
        fields = event.extra_fields
        if hasattr(fields, "alloc_size"):
            yield event.start_time_ns, fields.ptr, fields.alloc_size, fields.total_allocated
        yield from _allocations(event.children)


def measure_in_processes(
    config: str, processes: int, mode: str, overrides: list[str]
) -> dict[str, Any]:
    """`measure` under torchrun; the peaks of all processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            [
                *launcher,
                f"--nproc-per-node={processes}",
                "--module",
                "benchmarks.plan_memory",
                config,
                f"--mode={mode}",
                *overrides,
                f"run_dir={folder}/run",
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in result.stdout.splitlines() if line.startswith('{"peaks"')]
    if result.returncode or not lines:
        raise RuntimeError(f"the measured run failed:\n{result.stdout}\n{result.stderr}")
    found: dict[str, Any] = json.loads(lines[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument("--nproc", type=int, default=1)
    parser.add_argument(
        "--repeat",
        type=int,
        default=1,
        help="take the lowest of so many measurements: gloo's threads free memory unseen",
    )
    parser.add_argument("--mode", choices=("search", "train"), default="search")
    options, rest = parser.parse_known_args()
    overrides = options.overrides + rest
    if "RANK" in os.environ:
        found = measure(options.config, options.mode, overrides)
        if os.environ["RANK"] == "0":
            print(json.dumps(found), flush=True)
        return
    config = str(Path(options.config).resolve())
    attempts = [
        measure_in_processes(config, options.nproc, options.mode, overrides)
        for _ in range(options.repeat)
    ]
    found = min(attempts, key=lambda each: max(each["peaks"]))
    highest = max(found["peaks"])
    print(
        f"measured {highest / 1e6:.1f} MB, predicted {found['predicted'] / 1e6:.1f} MB, ratio "
        f"{found['predicted'] / highest:.3f}"
    )
    for name, value in found["parts"].items():
        print(f"  {name:12} {value / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
