"""Goal 5: what reading data costs a training step, and a sample of a source of 10^9.

    python -m benchmarks.loader [--budget 60]

The demo's size, training. In every step the time of drawing and reading its batches is set against
the time of the rest, which is what a step on tensors in memory takes. Random samples of a sparse
source of 10^9 samples (8 TB that take no room) alternate with single tokens at random places of it,
which cost a page fault each.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.large_source import SEQUENCE, write_sparse
from benchmarks.timing import Row, Spread, alternate, one_thread, parser, ratios, tell, timed
from benchmarks.training_speed import config_of

DRAWN = 256


def step_rows(folder: Path, budget: float) -> list[Row]:
    from fastmix_mega.config.sections import ParallelSection
    from fastmix_mega.methods.fixed import FixedMixture
    from fastmix_mega.parallel import layout as parallel_layout
    from fastmix_mega.training.engine.batches import MicroBatch, load_micro_batch
    from fastmix_mega.training.trainer import Trainer

    with parallel_layout.start(ParallelSection()) as layout:
        trainer = Trainer(FixedMixture(config_of(folder, "demo")), layout)
        batches: list[MicroBatch] = []
        numbers = iter(range(1_000_000))

        def load() -> None:
            draw = trainer.sampler.draw(next(numbers), trainer.mixer.policy.distribution)
            weights = trainer.mixer.policy.loss_weights[draw.sources]
            batches[:] = [
                load_micro_batch(trainer.run.inputs.sources, draw, rows, weights, layout.device)
                for rows in trainer.rows
            ]

        def train() -> None:
            trainer.engine.train_step(5, batches)

        loads, steps = alternate_in_order(load, train, budget)
        trainer.close()
    wall, cpu = (
        Spread.of(
            [1 + first / second for first, second in zip(loads[way], steps[way], strict=True)]
        )
        for way in ("wall", "cpu")
    )
    measured = f"{cpu} of processor time, {wall} of wall time, {cpu.count} steps"
    what = "demo: a step with its loading / the step on tensors in memory"
    return [Row(5, what, "at most 1.01", measured, cpu.median <= 1.01)]


def alternate_in_order(
    load: Callable[[], None], train: Callable[[], None], budget: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of both, step by step; the loading always comes first."""
    found: tuple[dict[str, list[float]], ...] = ({"wall": [], "cpu": []}, {"wall": [], "cpu": []})
    end = time.perf_counter() + budget
    for number in range(200):
        if number > 10 and time.perf_counter() > end:
            break
        for action, here in zip((load, train), found, strict=True):
            span = timed(action)
            if number >= 3:
                here["wall"].append(span.wall)
                here["cpu"].append(span.cpu)
    return found[0], found[1]


def access_rows(folder: Path, budget: float) -> list[Row]:
    from fastmix_mega.data.source import TokenSource

    write_sparse(folder / "large", 10**9)
    source = TokenSource("large", [str(folder / "large")], SEQUENCE, seed=1)
    tokens = source.files[0].tokens
    random = np.random.default_rng(0)

    def draw() -> None:
        source.samples(random.integers(0, source.num_samples, DRAWN))

    def touch() -> None:
        for place in random.integers(0, len(tokens), DRAWN):
            int(tokens[place])

    drawn, touched = alternate((draw, touch), 30, budget)
    cpu, wall = ratios(drawn, touched)
    each = sorted(span.cpu for span in drawn)[len(drawn) // 2] / DRAWN * 1e6
    measured = f"{cpu} of processor time, {wall} of wall time; {each:.0f} us a sample of 4,097"
    what = f"{DRAWN} random samples of a source of 10^9 / {DRAWN} single tokens, all uncached"
    return [Row(5, what, "about 1", measured)]


def main() -> None:
    options = parser(__doc__, 60.0).parse_args()
    one_thread()
    from tests.tiny import write_corpora

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpora(folder)
        rows = access_rows(folder, options.budget / 3)
        rows += step_rows(folder, options.budget * 2 / 3)
    tell(rows, options.json)


if __name__ == "__main__":
    main()
