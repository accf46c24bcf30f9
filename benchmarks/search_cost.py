"""Goal 1: what does a search cost on top of the training it contains?

    python -m benchmarks.search_cost [--budget 240] [--size demo|100M] [key.path=value ...]

In one process windows of plain training steps, of steps with scores, and of steps with all that a
search adds (target gradient, scores, sums, update) follow one another; neighbours are compared. A
whole search is a plain window and one with everything, since by default scores are taken in the
last half of a run. The default search compares the body's gradients, by hooks; a trajectory, as of
conversations, those of the head, in closed form. The demo's size has its 4,096-token vocabulary,
the 100M proxy one of 32,768. Tokens are random: no time depends on them. `--profile` prints where
the time of plain and scored steps goes instead.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.timing import Row, Spread, alternate, one_thread, parser, ratio_row, tell, timed
from fastmix_mega.training.engine import head_scores

SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "model": {"preset": "demo", "vocab_size": 4096},
        "train": {"global_batch": 16, "micro_batch": 8, "seq_length": 128},
        "search": {"target_batch": 16, "every": 16},
    },
    "100M": {
        "model": {"preset": "60M", "vocab_size": 32768},
        "train": {"global_batch": 2, "micro_batch": 2, "seq_length": 128},
        "search": {"target_batch": 2, "every": 8},
    },
}
SCORED_TOKENS = 0.125
"""The head's default share."""
HEAD = {"answer": "trajectory", "initial": "uniform", "score_tokens": SCORED_TOKENS}
"""Settings of a search by head scores."""
MOST = {"demo": 1.05, "100M": 1.02}
"""Of steps with head scores, for plain ones."""
MOST_SEARCH = 1.10
MOST_BODY = 1.05


def build_loop(folder: Path, size: str, layout: Any, search: dict[str, Any]) -> Any:
    """A search's Trainer over small corpora; `search` are settings beyond the size's."""
    from fastmix_mega.configuration import parse_config
    from fastmix_mega.methods.registry import method_of
    from fastmix_mega.training.trainer import Trainer
    from tests.tiny import tiny_settings

    settings = tiny_settings(folder, folder / f"run-{size}-{len(search)}")
    set_size(settings, size, search)
    return Trainer(method_of(parse_config(settings)), layout)


def set_size(settings: dict[str, Any], size: str, search: dict[str, Any]) -> None:
    """Make the tests' settings those of an endless search of a size; `search` as above."""
    for section in ("model", "train"):
        settings[section] |= SIZES[size][section]
    settings["train"]["steps"] = 1_000_000
    settings["search"] = {**SIZES[size]["search"], **search}
    settings["search"]["warmup"] = settings["search"]["every"]


class Windows:
    """Windows of steps of one run, plain, scored or searching; one after another."""

    def __init__(self, trainer: Any, length: int) -> None:
        self.trainer, self.length = trainer, length
        self.step = 0
        self._steps(2)
        trainer.mixer.before_step(trainer.config.search.every)
        trainer.mixer.observer.meter.enabled = False

    def _steps(self, count: int) -> None:
        for _ in range(count):
            self.trainer._train_step(self.step)
            self.step += 1

    def plain(self) -> None:
        self._steps(self.length)

    def scored(self) -> None:
        self.trainer.mixer.observer.meter.enabled = True
        self._steps(self.length)
        self.trainer.mixer.observer.meter.enabled = False

    def score_share(self) -> float:
        """Processor time of the head's scores, every target's own included, for that of the rest
        of the same steps.

        Steadier than neighbours' ratio; what scoring does to caches elsewhere it cannot see.
        """
        spent: list[float] = []

        def timed_scores(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any) -> Any:
                before = time.thread_time()
                found = original(*given)
                spent.append(time.thread_time() - before)
                return found

            return call

        with ExitStack() as patches:
            for name in ("sequence_scores", "sequence_scores_by_target"):
                original = getattr(head_scores, name)
                patches.enter_context(patch.object(head_scores, name, timed_scores(original)))
            whole = timed(self.scored).cpu
        return sum(spent) / (whole - sum(spent))

    def searching(self) -> None:
        """A whole window between two updates."""
        outer, every = self.trainer.mixer, self.trainer.config.search.every
        self.step += -self.step % every
        for _ in range(every):
            outer.before_step(self.step)
            self.trainer._train_step(self.step)
            outer.after_step(self.step)
            self.step += 1

    def whole_search(self) -> None:
        self._steps(self.trainer.config.search.every)
        self.searching()

    def whole_plain(self) -> None:
        self._steps(2 * self.trainer.config.search.every)


def measure(size: str, budget: float) -> list[Row]:
    from fastmix_mega.config.sections import ParallelSection
    from fastmix_mega.parallel import layout as parallel_layout
    from tests.tiny import write_corpora

    rows = []
    with (
        tempfile.TemporaryDirectory() as name,
        parallel_layout.start(ParallelSection()) as layout,
    ):
        folder = Path(name)
        write_corpora(folder)
        rows += _default_rows(build_loop(folder, size, layout, {}), size, 0.7 * budget)
        rows += _head_rows(build_loop(folder, size, layout, HEAD), size, 0.3 * budget)
    return rows


def _default_rows(trainer: Any, size: str, budget: float) -> list[Row]:
    windows = Windows(trainer, _window_steps(size))
    plain, scored = alternate((windows.plain, windows.scored), 40, 0.2 * budget)
    what = f"{size}: steps with scores of the body / plain steps"
    rows = [ratio_row(1, what, MOST_BODY, scored, plain)]
    plain, whole = alternate((windows.whole_plain, windows.whole_search), 30, 0.8 * budget)
    what = f"{size}: the whole default search / training"
    rows.append(ratio_row(1, what, MOST_SEARCH, whole, plain))
    trainer.close()
    return rows


def _head_rows(trainer: Any, size: str, budget: float) -> list[Row]:
    windows, most = Windows(trainer, _window_steps(size)), MOST[size]
    plain, scored = alternate((windows.plain, windows.scored), 40, budget / 2)
    inside = Spread.of([1 + windows.score_share() for _ in range(6 if size == "demo" else 2)])
    what = f"{size}: head scores' own processor time within those steps, 1 + share of the rest"
    text = f"{inside}, {inside.count} windows"
    rows = [Row(1, what, f"at most {most:g}", text, inside.median <= most)]
    what = f"{size}: steps with head scores of {SCORED_TOKENS:g} of the tokens / plain steps"
    rows.append(ratio_row(1, what, most, scored, plain))
    if size == "demo":
        plain, whole = alternate((windows.whole_plain, windows.whole_search), 30, budget / 2)
        what = f"{size}: a whole search by head scores / training"
        rows.append(ratio_row(1, what, MOST_SEARCH, whole, plain))
    trainer.close()
    return rows


def _window_steps(size: str) -> int:
    return 2 if size == "demo" else 1


def profile(size: str) -> None:
    """Where processor time goes, plain steps and scored ones."""
    import torch

    from fastmix_mega.config.sections import ParallelSection
    from fastmix_mega.parallel import layout as parallel_layout
    from tests.tiny import write_corpora

    with (
        tempfile.TemporaryDirectory() as name,
        parallel_layout.start(ParallelSection()) as layout,
    ):
        write_corpora(Path(name))
        windows = Windows(build_loop(Path(name), size, layout, {}), 8 if size == "demo" else 2)
        for action in (windows.plain, windows.scored):
            action()
            with torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU]
            ) as recorded:
                action()
            print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=30))


def main() -> None:
    made = parser(__doc__, 240.0)
    made.add_argument("--size", choices=(*SIZES, "both"), default="both")
    made.add_argument("--profile", action="store_true")
    options = made.parse_args()
    one_thread()
    sizes = list(SIZES) if options.size == "both" else [options.size]
    for size in sizes:
        if options.profile:
            profile(size)
        else:
            tell(measure(size, options.budget / len(sizes)), options.json)


if __name__ == "__main__":
    main()
