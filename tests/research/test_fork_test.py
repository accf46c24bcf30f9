"""To first order a fork's effect is rate x tilt x score; forks go on exactly where the run was."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.plain_model import PlainModel, PlainTraining
from fastmix_mega.configuration import parse_config
from fastmix_mega.errors import UserError
from fastmix_mega.model.initialize import HEAD_NAME as HEAD
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.training.engine.head_scores import VocabularyShard, preconditioner
from research.fork_records import ForkRun, fork_records
from research.fork_scores import (
    SCORES,
    HeadCurvature,
    Named,
    adam_divisors,
    group_of,
    head_curvature,
    mean_losses,
    scores,
)
from research.fork_tables import beyond, cases, ceiling, pearson, tables
from research.fork_test import (
    ForkTest,
    Point,
    Stream,
    draw_plan,
    effects,
    initial_model,
    options_of,
)
from research.study_file import StudyFile
from tests.tiny import tiny_settings, write_corpora

SHAPE = ModelShape(2, 8, 2, 1, 16, 24, False)
LENGTH, SOURCES = 6, 4


def double_model() -> PlainModel:
    model = initial_model(SHAPE, 3)
    return PlainModel(
        SHAPE,
        # Larger weights than a fresh model's, so that every group matters.
        {
            name: (value.detach().double() * 2).requires_grad_()
            for name, value in model.parameters.items()
        },
    )


@dataclass
class Numbered:
    """A source of one sequence, or of sequences that say their place."""

    sequence: Tensor | None = None
    seq_length: int = LENGTH

    def samples(self, indices: np.ndarray) -> np.ndarray:
        if self.sequence is None:
            return np.repeat(indices[:, None], self.seq_length + 1, 1)
        return np.tile(self.sequence.numpy(), (len(indices), 1))


def streams_of(sources: list[Numbered]) -> list[Stream]:
    return [Stream(cast(Any, source)) for source in sources]


@dataclass
class Descent:
    """One kind of parameters, by plain gradient descent behind a fixed preconditioner."""

    model: PlainModel
    group: str
    by: str
    divisors: Named
    curvature: HeadCurvature
    rate: float

    def step(self, losses: list[Tensor]) -> None:
        names, parameters = zip(*self.model.parameters.items(), strict=True)
        gradients = torch.autograd.grad(losses[0], parameters)
        with torch.no_grad():
            for name, value, gradient in zip(names, parameters, gradients, strict=True):
                if self.group not in (group_of(name), "all"):
                    continue
                if self.by == "Adam":
                    gradient = gradient / self.divisors[name]
                elif self.by == "Kronecker":
                    gradient = self.curvature.solve(gradient)
                value -= self.rate * gradient


@dataclass
class Start:
    model: PlainModel
    rest: tuple[str, str, Named, HeadCurvature, float]

    def fork(self) -> tuple[PlainModel, Descent]:
        copies = {
            name: value.detach().clone().requires_grad_()
            for name, value in self.model.parameters.items()
        }
        model = PlainModel(SHAPE, copies)
        return model, Descent(model, *self.rest)


@pytest.mark.parametrize("score", SCORES[:-1])
def test_one_small_step_has_the_effect_that_the_score_says(score: str) -> None:
    """Sources of one sequence each, so that scores and forks see the same gradients."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(0, SHAPE.vocab_size, (SOURCES, LENGTH + 1), generator=generator)
    targets = [
        torch.randint(0, SHAPE.vocab_size, (count, LENGTH + 1), generator=generator)
        for count in (5, 3)
    ]
    model, mixture = double_model(), np.array([0.4, 0.1, 0.2, 0.3])
    moments = {
        name: torch.rand(value.shape, generator=generator, dtype=torch.float64)
        for name, value in model.parameters.items()
    }
    sources = [sequence.expand(3, -1) for sequence in drawn]
    found = scores(model, moments, sources, targets, mixture, 2)[score]
    group, by = score.split()
    rate, batch, replaced = 1e-6, 8, 2
    curvature = head_curvature(model, sources, mixture, 2)
    plan = draw_plan(
        streams_of([Numbered(sequence) for sequence in drawn]),
        mixture, 1, batch, replaced, np.random.default_rng(0),
    )  # fmt: skip
    truth = effects(
        Start(model, (group, by, adam_divisors(moments), curvature, rate)),
        plan,
        [1],
        lambda forked: np.array([mean_losses(forked, target, 2) for target in targets]),
    )[0]
    # What is replaced is the same for all sources, so that differences between them are exact.
    given = truth - truth.mean(1, keepdims=True)
    wanted = rate * replaced / batch * (found - found.mean(1, keepdims=True))
    assert given == pytest.approx(wanted, rel=2e-3, abs=1e-3 * float(np.abs(wanted).max()))


def test_preconditioners_are_the_products_and_their_definition() -> None:
    generator = torch.Generator().manual_seed(2)
    moment = torch.rand(SHAPE.vocab_size, SHAPE.hidden_size, generator=generator)
    wanted = preconditioner(moment.clone(), 0.1, VocabularyShard(0, None))
    assert torch.allclose(adam_divisors({HEAD: moment})[HEAD], wanted, rtol=1e-6)
    model, mixture = double_model(), np.array([0.25, 0.75])
    sources = [
        torch.randint(0, SHAPE.vocab_size, (count, LENGTH + 1), generator=generator)
        for count in (3, 5)
    ]
    inputs, outputs = torch.zeros(8, 8).double(), torch.zeros(SHAPE.vocab_size).double()
    for sequences, share in zip(sources, mixture, strict=True):
        for hidden in model.hidden(sequences[:, :-1]).detach().flatten(0, 1):
            likely = (model.parameters[HEAD].detach() @ hidden).softmax(0)
            weight = share / (len(sequences) * LENGTH)
            inputs += weight * torch.outer(hidden, hidden)
            outputs += weight * likely * (1 - likely)
    found = head_curvature(model, sources, mixture, 2)
    assert torch.allclose(found.inputs, inputs)
    assert torch.allclose(found.outputs, outputs)
    gradient = torch.rand(moment.shape, generator=generator, dtype=torch.float64)
    ridge = 0.1 * inputs.trace() / 8 * torch.eye(8, dtype=torch.float64)
    rows = torch.diag(1 / (outputs + 0.1 * outputs.mean()))
    assert torch.allclose(found.solve(gradient), rows @ gradient @ torch.inverse(inputs + ridge))


def test_forks_go_on_exactly_where_the_run_was_and_leave_no_trace() -> None:
    model = initial_model(SHAPE, 5)
    training = PlainTraining(list(model.parameters.values()), 1e-2, True)
    batches = torch.randint(0, 24, (6, 4, LENGTH + 1), generator=torch.Generator().manual_seed(3))

    def step(of: PlainModel, by: PlainTraining, batch: Tensor) -> None:
        by.step([of.losses(batch[:, :-1], batch[:, 1:]).mean()])

    step(model, training, batches[0])
    first = Point.of(model, training, 1, 1e-2)
    for batch in batches[1:3]:
        step(model, training, batch)
    point = Point.of(model, training, 3, 1e-2)
    for _ in range(2):
        forked, by = point.fork()
        for batch in batches[3:]:
            step(forked, by, batch)
    for batch in batches[3:]:
        step(model, training, batch)
    for name, value in model.parameters.items():
        assert torch.equal(forked.parameters[name], value)
    # After one step the corrected second moment is the square of the clipped gradient.
    fresh = initial_model(SHAPE, 5)
    gradients = torch.autograd.grad(
        fresh.losses(batches[0][:, :-1], batches[0][:, 1:]).mean(), list(fresh.parameters.values())
    )
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    clip = min(1.0, 1.0 / float(norm))
    for moment, gradient in zip(first.second_moments().values(), gradients, strict=True):
        assert torch.allclose(moment, (gradient * clip).square(), rtol=1e-3, atol=1e-12)


def test_tilted_forks_differ_from_the_untilted_one_where_they_should() -> None:
    mixture, steps, batch, replaced = np.array([0.5, 0.3, 0.2]), 10, 6, 2
    streams = streams_of([Numbered() for _ in mixture])
    for number, stream in enumerate(streams):
        stream.next = 1000 * number
    plan = draw_plan(streams, mixture, steps, batch, replaced, np.random.default_rng(1))
    owners = plan.common[:, :, 0] // 1000
    counts = np.bincount(owners.flatten().numpy(), minlength=3)
    assert np.abs(counts - mixture * steps * batch).max() <= 1
    seen = plan.common[:, :, 0].flatten().tolist()
    for source, others in enumerate(plan.others):
        seen += others[:, :, 0].flatten().tolist()
        for step in range(steps):
            tilted, common = plan.batch(step, source), plan.batch(step, None)
            changed = (tilted != common).all(1).nonzero().flatten()
            assert sorted(plan.places[step].tolist()) == changed.tolist()
            assert (tilted[changed, 0] // 1000 == source).all()
    assert len(set(seen)) == len(seen)


def test_the_ceiling_is_what_the_truth_itself_reaches() -> None:
    random = np.random.default_rng(4)
    truth = random.normal(size=4000)
    measured = truth + random.normal(size=(3, 4000)) * 1.5
    singles = np.mean([pearson(truth, each) for each in measured])
    assert ceiling(measured, pearson, averaged=False) == pytest.approx(singles, abs=0.02)
    together = pearson(truth, measured.mean(0))
    assert ceiling(measured, pearson, averaged=True) == pytest.approx(together, abs=0.02)
    assert np.isnan(ceiling(measured[:1], pearson, averaged=True))


def test_partial_correlation_is_that_of_least_squares_residuals() -> None:
    random = np.random.default_rng(6)
    given, first, second = random.normal(size=(3, 9))
    line = np.stack((given, np.ones(9)), 1)
    left = [values - line @ np.linalg.lstsq(line, values)[0] for values in (first, second)]
    assert beyond(given)(first, second) == pytest.approx(pearson(*left))


def test_a_whole_fork_test_is_told_and_is_the_same_again(tmp_path: Path) -> None:
    write_corpora(tmp_path)
    settings = tiny_settings(tmp_path, tmp_path / "run")
    near = {"name": "near", "prefix": str(tmp_path / "target")}
    config = parse_config(settings | {"evaluation": {"sets": [near]}})
    given = shlex.split(
        "--size tiny --targets near --steps 4 --batch 4 --seq-length 16 --horizons 2 1 --held 4 "
        "--score-sequences 2 --target-sequences 2 --repeats 2"
    )

    def run(kept: ForkRun, *more: str) -> None:
        ForkTest(config, options_of([*given, *more])).run(lambda _: None, kept)

    alone, file = ForkRun(), StudyFile(tmp_path / "forks.jsonl")
    run(alone)
    first = alone.record
    # Begun with one repetition, torn, and gone on with.
    run(ForkRun("tiny", file), "--repeats", "1")
    file.path.write_bytes(file.path.read_bytes()[:-9])
    run(ForkRun("tiny", file))
    again = fork_records(file)["tiny"]
    assert first["points"] == again["points"]
    assert [row.get("point") for row in file.rows()] == [None, 0, 1, 0, 1]
    with pytest.raises(UserError, match="a run tiny that differs in points, steps"):
        run(ForkRun("tiny", file), "--steps", "8")
    assert [len(point["repetitions"]) for point in first["points"]] == [2, 2]
    told = tables([first])
    for number, row in enumerate(("| 2 of 4 |", "| 4 of 4 |", "| tiny | 2 | 1 | near |")):
        assert row in told, number
    assert first["sources"][1] == "beta"
    for whole, part in zip(cases(first), cases(first, ["beta"]), strict=True):
        assert np.array_equal(np.delete(whole.effects, 1, 1), part.effects)
        assert np.array_equal(np.delete(whole.scores["all Adam"], 1, 1), part.scores["all Adam"])
    with pytest.raises(UserError, match="far: the configuration needs"):
        ForkTest(config, options_of([*given, "--targets", "far"]))
