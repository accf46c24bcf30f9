"""The fork test: which gradients foresee what training on a source does to a target?

    python -m data_tools.prepare configs/corpora_demo.yaml --output data/demo
    python -m research.fork_test --size demo --budget 600 --output FILE.jsonl
    python -m research.fork_test --table research/results/fork_test.jsonl

A proxy in plain PyTorch is trained at a mixture. At some points of its schedule the sources are
scored by several gradients (`research.fork_scores`), and the run is forked: once as it was, and
once per source with a part of every batch (`--tilt`) replaced by sequences of that source. Rate and
mixture stand still in a fork. All forks of a repetition read the same sequences in the same places
but for the replaced ones, which lie in the same places for every source. The truth is by how much
a fork's loss on held-out text of the target fell below the untilted fork's.

Every repetition draws new sequences for scores and forks. Told is the correlation over sources of
each score with the truth. Its ceiling is what a score that knew the expected truth would reach: the
root of the mean correlation between two repetitions' truths.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.plain_model import PlainModel, PlainTraining
from benchmarks.timing import one_thread, parser
from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import ModelSection, ScheduleSection
from fastmix_mega.configuration import load_config
from fastmix_mega.data.rows import Source
from fastmix_mega.data.source import open_source
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.bigram import BigramCounts, bigram_loss, count_bigrams
from fastmix_mega.mixture.file import resolve_mixture
from fastmix_mega.model.presets import ModelShape, resolve_shape
from fastmix_mega.training.engine.learning_rate import learning_rate
from research.fork_records import ForkRun, fork_records
from research.fork_scores import PAIRS, FloatArray, Named, group_of, mean_losses, scores
from research.fork_tables import tables
from research.study_file import StudyFile

SIZES: dict[str, tuple[dict[str, Any], float]] = {
    "tiny": ({"preset": "tiny"}, 4e-3),
    "demo": ({"preset": "demo"}, 4e-3),
    "3M": ({"preset": "1M", "hidden_size": 256, "ffn_size": 512}, 3e-3),
    "10M": ({"preset": "10M"}, 2e-3),
    "25M": ({"preset": "10M", "layers": 8, "hidden_size": 512, "attention_heads": 8,
             "ffn_size": 1408}, 1.5e-3),
}  # fmt: skip
"""Model sections and peak learning rates."""
SECOND_MOMENT_DECAY = 0.95
"""Of `PlainTraining`."""


class Stream:
    """A source's sequences in its shuffled order, none twice within an epoch."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.next = 0

    def take(self, count: int) -> Tensor:
        """[count, s + 1]"""
        indices = np.arange(self.next, self.next + count)
        self.next += count
        return torch.from_numpy(self.source.samples(indices))


class Training(Protocol):
    def step(self, losses: list[Tensor]) -> None:
        """One optimizer step."""


class Forkable(Protocol):
    def fork(self) -> tuple[PlainModel, Training]:
        """A copy of the model, and a training of that copy."""


@dataclass(frozen=True)
class Point:
    """A state of a run that can be gone on from many times."""

    shape: ModelShape
    step: int
    """Optimizer steps done."""
    rate: float
    parameters: Named
    optimizer: dict[str, Any]

    @classmethod
    def of(cls, model: PlainModel, training: PlainTraining, step: int, rate: float) -> Point:
        parameters = {name: value.detach().clone() for name, value in model.parameters.items()}
        state = copy.deepcopy(training.optimizer.state_dict())
        return cls(model.shape, step, rate, parameters, state)

    def fork(self) -> tuple[PlainModel, PlainTraining]:
        copies = {name: value.clone().requires_grad_() for name, value in self.parameters.items()}
        training = PlainTraining(list(copies.values()), self.rate, True)
        # load_state_dict would train on the point's own moments.
        training.optimizer.load_state_dict(copy.deepcopy(self.optimizer))
        set_rate(training, self.rate)
        return PlainModel(self.shape, copies), training

    def second_moments(self) -> Named:
        """Adam's, corrected for bias."""
        model, training = self.fork()
        correction = 1 - SECOND_MOMENT_DECAY**self.step
        state = training.optimizer.state
        return {
            name: state[value]["exp_avg_sq"] / correction
            for name, value in model.parameters.items()
        }


@dataclass(frozen=True)
class Plan:
    """What the forks of one repetition read."""

    common: Tensor
    """[H, B, s + 1] the untilted fork's batches."""
    places: Tensor
    """[H, k] the rows of each batch that are replaced in a tilted one."""
    others: list[Tensor]
    """Per source [H, k, s + 1] what comes there."""

    def batch(self, step: int, source: int | None) -> Tensor:
        """[B, s + 1]; None for the untilted fork."""
        if source is None:
            return self.common[step]
        batch = self.common[step].clone()
        batch[self.places[step]] = self.others[source][step]
        return batch


def draw_plan(
    streams: Sequence[Stream],
    mixture: FloatArray,
    steps: int,
    batch: int,
    replaced: int,
    random: np.random.Generator,
) -> Plan:
    """Over all steps every source has its share of sequences, up to one."""
    quantiles = (np.arange(steps * batch) + random.random()) / (steps * batch)
    law = np.cumsum(mixture) / mixture.sum()
    drawn = random.permutation(np.searchsorted(law, quantiles, side="right"))
    # Rounding may leave the law's end below the last quantile.
    drawn = np.minimum(drawn, len(mixture) - 1)
    length = streams[0].source.seq_length + 1
    common = torch.empty(steps * batch, length, dtype=torch.int64)
    for source, stream in enumerate(streams):
        rows = np.flatnonzero(drawn == source)
        common[torch.from_numpy(rows)] = stream.take(len(rows))
    places = np.stack([random.permutation(batch)[:replaced] for _ in range(steps)])
    others = [stream.take(steps * replaced).view(steps, replaced, length) for stream in streams]
    return Plan(common.view(steps, batch, length), torch.from_numpy(places), others)


def batch_loss(model: PlainModel, batch: Tensor, bf16: bool) -> Tensor:
    """Of [B, s + 1] sequences; bf16: with matrix products in bfloat16, as large models train."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return model.losses(batch[:, :-1], batch[:, 1:]).mean()


def run_fork(
    point: Forkable,
    plan: Plan,
    source: int | None,
    horizons: Sequence[int],
    measure: Callable[[PlainModel], FloatArray],
    bf16: bool = False,
) -> FloatArray:
    """[horizons, K] what `measure` says after as many steps of the fork."""
    model, training = point.fork()
    measured = []
    for step in range(max(horizons)):
        training.step([batch_loss(model, plan.batch(step, source), bf16)])
        if step + 1 in horizons:
            measured.append(measure(model))
    return np.stack(measured)


def effects(
    point: Forkable,
    plan: Plan,
    horizons: Sequence[int],
    measure: Callable[[PlainModel], FloatArray],
    bf16: bool = False,
) -> FloatArray:
    """[horizons, K, S] the untilted fork's losses minus each tilted one's; horizons ascend."""
    untilted = run_fork(point, plan, None, horizons, measure, bf16)
    tilted = [
        run_fork(point, plan, source, horizons, measure, bf16) for source in range(len(plan.others))
    ]
    return untilted[:, :, None] - np.stack(tilted, -1)


def initial_model(shape: ModelShape, seed: int) -> PlainModel:
    """Drawn as the product does by default: N(0, 2 / (5 * width)), less where the residual stream
    is written."""
    generator = torch.Generator().manual_seed(seed)
    width = shape.hidden_size
    std = (2 / (5 * width)) ** 0.5

    def matrix(rows: int, columns: int, scale: float = 1.0) -> Tensor:
        drawn = torch.randn(rows, columns, generator=generator)
        return drawn.mul_(std * scale).requires_grad_()

    def norm() -> Tensor:
        return torch.ones(width, requires_grad=True)

    residual = (2 * shape.layers) ** -0.5
    parameters = {"embedding.word_embeddings.weight": matrix(shape.vocab_size, width)}
    for layer in range(shape.layers):
        prefix = f"decoder.layers.{layer}."
        mixed = shape.query_size + 2 * shape.key_value_size
        parameters |= {
            f"{prefix}input_layernorm.weight": norm(),
            f"{prefix}self_attention.linear_qkv.weight": matrix(mixed, width),
            f"{prefix}self_attention.linear_proj.weight": matrix(width, shape.query_size, residual),
            f"{prefix}pre_mlp_layernorm.weight": norm(),
            f"{prefix}mlp.linear_fc1.weight": matrix(2 * shape.ffn_size, width),
            f"{prefix}mlp.linear_fc2.weight": matrix(width, shape.ffn_size, residual),
        }
    parameters["decoder.final_layernorm.weight"] = norm()
    parameters["output_layer.weight"] = matrix(shape.vocab_size, width)
    return PlainModel(shape, parameters)


def set_rate(training: PlainTraining, rate: float) -> None:
    for group in training.optimizer.param_groups:
        group["lr"] = rate


def train(
    model: PlainModel,
    streams: Sequence[Stream],
    mixture: FloatArray,
    schedule: ScheduleSection,
    steps: int,
    batch: int,
    marks: Sequence[int],
    random: np.random.Generator,
    bf16: bool,
) -> list[Point]:
    """The run that is forked; a point after each of the steps in `marks`."""
    training = PlainTraining(list(model.parameters.values()), schedule.peak, True)
    points = []
    for step in range(max(marks)):
        rate = learning_rate(schedule, step, steps)
        set_rate(training, rate)
        drawn = random.choice(len(mixture), batch, p=mixture)
        rows = torch.cat([streams[source].take(1) for source in drawn])
        training.step([batch_loss(model, rows, bf16)])
        if step + 1 in marks:
            points.append(Point.of(model, training, step + 1, rate))
    return points


@dataclass(frozen=True)
class Drawn:
    """The sequences of one repetition."""

    sources: list[Tensor]
    """Per source [n, s + 1], for its scores."""
    targets: list[Tensor]
    """Per target [m, s + 1], for its gradient."""
    plan: Plan


class ForkTest:
    """One size on one configuration's corpora.

    Raises:
        UserError: if the configuration, its corpora or the mixture have a mistake.
    """

    def __init__(self, config: Config, options: argparse.Namespace) -> None:
        self.config, self.options = config, options
        self.random = np.random.default_rng(options.seed)
        by_name = {target.name: target for target in config.targets}
        held = {} if config.evaluation is None else {s.name: s for s in config.evaluation.sets}
        self.target_names = options.targets or list(by_name)
        for name in self.target_names:
            if name not in by_name or name not in held:
                raise UserError(
                    f"--targets {name}: the configuration needs a target and an evaluation set of "
                    f"that name; it has both of {', '.join(sorted(set(by_name) & set(held)))}"
                )

        def opened(entry: Any) -> Source:
            source = open_source(entry.name, entry.prefixes, options.seq_length, options.seed)
            if source.masked:
                raise UserError(f"{entry.name} holds conversations; the fork test takes text alone")
            return source

        sources = [opened(entry) for entry in config.sources]
        targets = [opened(by_name[name]) for name in self.target_names]
        tokens = [source.num_tokens for source in sources]
        self.source_names = [source.name for source in sources]
        self.mixture = resolve_mixture(options.mixture, self.source_names, tokens, "--mixture")
        self.streams = [Stream(source) for source in sources]
        self.target_streams = [Stream(target) for target in targets]
        self.held = []
        for name in self.target_names:
            there = opened(held[name])
            self.held.append(Stream(there).take(min(options.held, there.num_samples)))
        manifest = sources[0].files[0].manifest
        if manifest is None or manifest.vocab_size is None:
            raise UserError(f"{self.source_names[0]}: its manifest names no vocabulary size")
        section, peak = SIZES[options.size]
        self.shape = resolve_shape(ModelSection(**section), manifest.vocab_size)
        warmup = max(1, options.steps // 12)
        self.schedule = ScheduleSection(peak=options.peak or peak, warmup=warmup)
        self.pairs: list[BigramCounts] = [
            count_bigrams(sources, [target], np.ones(1), manifest.vocab_size) for target in targets
        ]

    def run(self, tell: Callable[[str], None], kept: ForkRun) -> None:
        """Train, then repeat at the points in turn while the budget allows another repetition.

        A run that was kept goes on: it is trained again, and what its repetitions drew is drawn.

        Args:
            tell: is given lines for the reader.
            kept: is given every repetition.

        Raises:
            UserError: if the run that was kept is another one.
        """
        options = self.options
        started = time.perf_counter()
        model = initial_model(self.shape, options.seed)
        sizes: dict[str, int] = {}
        for name, value in model.parameters.items():
            sizes[group_of(name)] = sizes.get(group_of(name), 0) + value.numel()
        marks = sorted({max(1, round(share * options.steps)) for share in options.points})
        points = train(
            model, self.streams, self.mixture, self.schedule, options.steps, options.batch, marks,
            self.random, options.bf16,
        )  # fmt: skip
        seconds = round(time.perf_counter() - started, 1)
        kept.begin(self._settings(sizes, points) | {"training_seconds": seconds})
        tell(
            f"{options.size}: {sum(sizes.values()) / 1e6:.2f}M parameters, trained for "
            f"{seconds:.0f} s, losses {kept.record['points'][-1]['losses']}"
        )

        longest = 0.0
        for number in range(options.repeats * len(points)):
            repetition, place = divmod(number, len(points))
            if longest and time.perf_counter() - started + longest > options.budget:
                break
            begun = time.perf_counter()
            drawn = self._draw()
            if kept.has(place, repetition):
                continue
            found = self._repetition(points[place], drawn)
            longest = max(longest, time.perf_counter() - begun)
            kept.add(place, found, time.perf_counter() - begun)
            tell(f"point {points[place].step}: {time.perf_counter() - begun:.0f} s")

    @property
    def _replaced(self) -> int:
        """Sequences of a batch."""
        return max(1, round(self.options.tilt * self.options.batch))

    def _settings(self, sizes: dict[str, int], points: Sequence[Point]) -> dict[str, Any]:
        """The record without repetitions and times."""
        options = self.options
        return {
            "size": options.size,
            "parameters": sizes | {"all": sum(sizes.values())},
            "sources": self.source_names,
            "targets": self.target_names,
            "mixture": self.mixture.tolist(),
            "steps": options.steps,
            "batch": options.batch,
            "seq_length": options.seq_length,
            "peak": self.schedule.peak,
            "bf16": options.bf16,
            "tilt": self._replaced / options.batch,
            "horizons": options.horizons,
            "seed": options.seed,
            "score_sequences": options.score_sequences,
            "target_sequences": options.target_sequences,
            "held_sequences": [len(held) for held in self.held],
            "points": [
                {
                    "step": point.step,
                    "tokens": point.step * options.batch * options.seq_length,
                    "rate": point.rate,
                    "losses": self._measure(PlainModel(self.shape, point.parameters)).tolist(),
                }
                for point in points
            ],
        }

    def _draw(self) -> Drawn:
        options = self.options
        sources = [stream.take(options.score_sequences) for stream in self.streams]
        targets = [stream.take(options.target_sequences) for stream in self.target_streams]
        plan = draw_plan(
            self.streams,
            self.mixture,
            max(options.horizons),
            options.batch,
            self._replaced,
            self.random,
        )
        return Drawn(sources, targets, plan)

    def _repetition(self, point: Point, drawn: Drawn) -> dict[str, Any]:
        options = self.options
        model, _ = point.fork()
        moments = point.second_moments()
        found = scores(model, moments, drawn.sources, drawn.targets, self.mixture, 16)
        seen = float(point.step * options.batch * options.seq_length)
        repetitions = self.config.search.repetitions
        slopes = [bigram_loss(self.mixture, pairs, seen, repetitions)[1] for pairs in self.pairs]
        found[PAIRS] = -np.stack(slopes)
        truth = effects(point, drawn.plan, options.horizons, self._measure, options.bf16)
        return {
            "scores": {name: value.tolist() for name, value in found.items()},
            "effects": truth.tolist(),
        }

    def _measure(self, model: PlainModel) -> FloatArray:
        """[K] held-out losses of the targets, in nats per token."""
        return np.array([mean_losses(model, held, 16) for held in self.held])


def options_of(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line, or as given."""
    made = parser(__doc__, 600.0)
    made.add_argument("--config", default="configs/demo.yaml", help="whose corpora (the demo's)")
    made.add_argument("--size", choices=SIZES, default="demo")
    made.add_argument("--targets", nargs="+", help="by name (all of the configuration's)")
    made.add_argument("--mixture", default="uniform", help="uniform, proportional or a file")
    made.add_argument("--steps", type=int, default=480, help="of the run that is forked (480)")
    made.add_argument("--batch", type=int, default=4, help="sequences (4)")
    made.add_argument("--seq-length", type=int, default=128)
    made.add_argument("--peak", type=float, help="learning rate (the size's own)")
    made.add_argument(
        "--points", type=float, nargs="+", default=[0.5, 1.0], help="shares of the steps (0.5 1)"
    )
    made.add_argument("--horizons", type=int, nargs="+", default=[32, 100], help="steps (32 100)")
    made.add_argument("--tilt", type=float, default=0.25, help="share of a batch (0.25)")
    made.add_argument("--repeats", type=int, default=4, help="at most (4)")
    made.add_argument("--score-sequences", type=int, default=96, help="per source (96)")
    made.add_argument("--target-sequences", type=int, default=256, help="per target (256)")
    made.add_argument("--held", type=int, default=128, help="held-out sequences per target (128)")
    made.add_argument("--bf16", action="store_true", help="train with bfloat16 products")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--output", type=Path, help="the JSONL file that keeps the run")
    made.add_argument("--name", help="of the run in that file (the size, and the seed if not 1)")
    made.add_argument("--table", type=Path, help="only print the tables of such a file")
    made.add_argument("--without", nargs="+", default=[], help="sources left out of the tables")
    options = made.parse_args(given)
    options.horizons.sort()
    return options


def main() -> None:
    options = options_of()
    try:
        if options.table:
            records = fork_records(StudyFile(options.table))
            print(tables(list(records.values()), options.without))
            return
        one_thread()
        test = ForkTest(load_config(options.config), options)
        name = options.name or options.size + (f"_seed_{options.seed}" if options.seed > 1 else "")
        kept = ForkRun(name, StudyFile(options.output) if options.output else None)
        test.run(lambda line: print(line, file=sys.stderr, flush=True), kept)
    except UserError as error:
        raise SystemExit(str(error)) from None
    print(json.dumps(kept.record) if options.json else tables([kept.record], options.without))


if __name__ == "__main__":
    main()
