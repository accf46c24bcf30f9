"""What does a checkpoint cost, against a training step? On one process, by phase.

    python -m benchmarks.save_cost CONFIG --saves 3 [key.path=value ...]

Prints seconds (medians) of a training step, and of a save's parts: DeepSpeed's collecting, writing
and syncing the files with their checksums, and the rest; by the clock, and of processor time, which
other jobs on the machine do not change much. A background writer could take at most the last two
off the critical path, and would need a copy of the state.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastmix_mega.checkpoint import store
from fastmix_mega.configuration import load_config


def timed(owner: Any, name: str, seconds: dict[str, float], label: str) -> None:
    """Add the time of every call of a function to `seconds[label]`, by the clock and processor."""
    original: Callable[..., Any] = getattr(owner, name)

    def wrapper(*arguments: Any, **named: Any) -> Any:
        started, used = time.perf_counter(), time.process_time()
        try:
            return original(*arguments, **named)
        finally:
            seconds[label] += time.perf_counter() - started
            seconds[f"{label}, processor"] += time.process_time() - used

    setattr(owner, name, wrapper)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument("--saves", type=int, default=3)
    options = parser.parse_args()

    from fastmix_mega.methods.fixed import FixedMixture
    from fastmix_mega.parallel import layout as layouts
    from fastmix_mega.training.trainer import Trainer

    config = load_config(options.config, options.overrides)
    # Beside the run folder, whose disk is the one that counts.
    beside = Path(config.run_dir).parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="save-cost-", dir=beside) as directory:
        config = config.model_copy(update={"run_dir": directory})
        with layouts.start(config.parallel) as layout:
            trainer = Trainer(FixedMixture(config), layout)
            spent: dict[str, float] = defaultdict(float)
            timed(trainer.engine.deepspeed, "save_checkpoint", spent, "collecting")
            timed(store, "_write_all", spent, "writing")
            rows: dict[str, list[float]] = defaultdict(list)
            trainer.mixer.before_step(0)
            for step in range(options.saves):
                started = time.perf_counter()
                trainer._train_step(step)
                rows["training step"].append(time.perf_counter() - started)
                spent.clear()
                started, used = time.perf_counter(), time.process_time()
                assert trainer.checkpoints.save(step + 1, trainer._state())
                rows["save"].append(time.perf_counter() - started)
                rows["save, processor"].append(time.process_time() - used)
                for name, value in spent.items():
                    rows[f"  {name}"].append(value)
            newest = Path(directory) / "checkpoints" / f"step_{options.saves}"
            size = sum(path.stat().st_size for path in newest.iterdir())
            parameters = trainer.run.shape.parameters / 1e6
            print(f"{parameters:.1f}M parameters, checkpoint {size / 1e6:.0f} MB")
            for name, values in rows.items():
                print(f"{name:24} {statistics.median(values):7.2f} s")
            trainer.close()


if __name__ == "__main__":
    main()
