"""What observers make of a real engine's training, against the engine's own evaluation."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.configuration import parse_config
from fastmix_mega.errors import RunFailed
from fastmix_mega.methods.odm import ODM
from fastmix_mega.methods.registry import method_of
from fastmix_mega.mixture.outer_schedule import OuterSchedule
from fastmix_mega.mixture.simplex import ScoreEstimate
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.engine.batches import even_micro_batches
from fastmix_mega.training.engine.learning_rate import learning_rate
from fastmix_mega.training.observers import TargetGradients, TargetLossFalls, TrainingLosses
from fastmix_mega.training.stop import StopRequest
from fastmix_mega.training.trainer import Trainer, run_within
from tests.launch import column


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    with parallel_layout.start(ParallelSection()) as started:
        yield started


@pytest.fixture
def make(settings: dict[str, Any], layout: Layout) -> Iterator[Any]:
    """Builds a trainer of a method, and lets go of it."""
    made: list[Trainer] = []

    def build(method: str, **search: Any) -> Trainer:
        settings["search"] |= {"target_scores": 1.0} | search
        config = parse_config(settings | {"method": method})
        made.append(Trainer(method_of(config), layout))
        return made[-1]

    yield build
    for trainer in made:
        trainer.engine.release()
        trainer.close()


def evaluated(trainer: Trainer, sequences: int, first: int = 0) -> FloatArray:
    """[targets] losses of their own sequences."""
    targets = trainer.run.inputs.targets
    batches = even_micro_batches(targets, sequences, first, 2, trainer.layout)
    return trainer.engine.evaluate(batches, [1] * len(targets)).losses


def test_losses_of_a_windows_sequences_by_source(make: Any) -> None:
    trainer = make("odm")
    observer = trainer.mixer.observer
    assert isinstance(observer, TrainingLosses)
    trainer._train_step(0)  # Before a window: nothing is observed.
    observer.start_window(1, 0)
    report = trainer._train_step(1)
    sums = observer.end_window(np.full(4, 0.25))
    wanted = np.zeros((4, 4))
    for rows, losses in zip(report.rows, report.losses, strict=True):
        for row, loss in zip(rows, losses.double().tolist(), strict=True):
            wanted[:, report.draw.sources[row]] += (loss, loss**2, 1, 1)
    np.testing.assert_allclose(sums, wanted, rtol=1e-12)
    assert sums[2].sum() == trainer.config.train.global_batch
    trainer._train_step(2)
    observer.start_window(3, 1)
    assert observer.end_window(np.full(4, 0.25)).sum() == 0
    assert observer.row() == {"target_loss": {}}


class SlowODM(ODM):
    """Updates from the losses of four steps, not of one."""

    def schedule(self) -> OuterSchedule:
        return OuterSchedule(4, 4, window=4, steps=self.config.train.steps)


def test_losses_of_a_window_survive_a_restart_within_it(
    settings: dict[str, Any], tmp_path: Path, layout: Layout
) -> None:
    """Windows of four steps, a checkpoint every five: bit for bit."""
    settings["train"]["steps"] = 16
    settings |= {"method": "odm", "checkpoint": {"every": 5, "keep": 9}}
    files = (("metrics.jsonl", "loss"), ("history.jsonl", "scores"), ("history.jsonl", "mixture"))

    def search() -> list[FloatArray]:
        config = parse_config(settings | {"run_dir": str(tmp_path / "run")})
        run_within(layout, SlowODM(config), StopRequest(config.run_dir))
        return [column(tmp_path / "run", *key) for key in files]

    whole = search()
    assert [len(found) for found in whole] == [16, 3, 3]
    assert column(tmp_path / "run", "history.jsonl", "counts").sum(axis=1).tolist() == [32.0] * 3
    for step in (15, 16):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step_{step}")
    for found, wanted in zip(search(), whole, strict=True):
        assert np.array_equal(found, wanted)


def test_the_fall_of_the_targets_loss(make: Any) -> None:
    """One observation, of the source that is trained on most; then from where the last ended."""
    trainer = make("aioli", target_batch=8)
    observer = trainer.mixer.observer
    assert isinstance(observer, TargetLossFalls)
    mixture = np.array([0.1, 0.1, 0.7, 0.1])
    before = evaluated(trainer, 4)
    observer.start_window(0, 0)
    for window in range(2):
        for step in range(3):
            trainer._train_step(3 * window + step)
        sums = observer.end_window(mixture)
        after = evaluated(trainer, 4)
        fall = float(np.array([2.0, 1.0]) @ (before - after) / 3)
        assert fall > 0
        np.testing.assert_allclose(sums[:, 2], [fall, fall**2, 1, 1], rtol=1e-9)
        assert (np.delete(sums, 2, axis=1) == 0).all()
        assert observer.row() == {"target_loss": dict(zip(("near", "far"), after, strict=True))}
        before = after
        # A later window begins where the last one ended.
        observer.load(pickle.loads(pickle.dumps(observer.state())))
        observer.start_window(3 * window + 3, window + 1)


def test_a_look_at_the_targets_sets_a_direction(make: Any) -> None:
    trainer = make("fastmix")
    observer = trainer.mixer.observer
    assert isinstance(observer, TargetGradients)
    assert not observer.meter.enabled
    for step in range(4):
        trainer._train_step(step)
    observer.start_window(4, 0)
    assert observer.meter.enabled
    np.testing.assert_allclose(observer.target_losses, evaluated(trainer, 3), rtol=1e-6)
    np.testing.assert_array_equal(observer.first_target_losses, observer.target_losses)
    for step in range(4, 8):
        trainer._train_step(step)
    sums = observer.end_window(np.full(4, 0.25))
    assert not observer.meter.enabled
    # All sequences of the window.
    assert sums[2].sum() == 4 * trainer.config.train.global_batch
    # The next look is at other sequences; the first losses stay.
    first = observer.target_losses.copy()
    observer.start_window(8, 1)
    np.testing.assert_allclose(observer.target_losses, evaluated(trainer, 3, first=1), rtol=1e-6)
    np.testing.assert_array_equal(observer.first_target_losses, first)


def test_what_is_learned_of_a_window(make: Any) -> None:
    """Gains are learning rate x score, and are scaled by what the search itself saw."""
    trainer = make("fastmix")
    observer, train = trainer.mixer.observer, trainer.config.train
    mixture = np.array([0.4, 0.3, 0.2, 0.1])
    for step in range(4):
        trainer._train_step(step)
    assert observer.gain_scale == 1.0
    gains, promised, windows = np.zeros(4), 0.0, []
    for outer_step, last in enumerate((7, 11)):
        observer.start_window(last - 3, outer_step)
        for step in range(last - 3, last + 1):
            trainer._train_step(step)
        sums = observer.end_window(mixture)
        windows.append(sums)
        scores = sums[0] / np.maximum(sums[2], 1)
        observer.learn(last, mixture, ScoreEstimate(scores, np.zeros(4)))
        steps = range(last - 3, last + 1)
        rate = sum(learning_rate(train.schedule, step, train.steps) for step in steps)
        gains += rate * scores
        promised += rate * float(mixture @ scores)
    np.testing.assert_allclose(observer.gains, gains)
    assert observer.promised == pytest.approx(promised)
    fall = np.array([2, 1]) / 3 @ (observer.first_target_losses - observer.target_losses)
    assert observer.gain_scale == pytest.approx(max(0.0, fall) / promised if promised > 0 else 1.0)
    row = observer.row()
    assert row["target_weights"] == pytest.approx([2 / 3, 1 / 3])
    # Every target's own scores, over the windows so far, add up to those of the whole.
    decayed = trainer.config.search.decay * windows[0] + windows[1]
    whole = np.array([2 / 3, 1 / 3]) @ np.array(row["target_scores"])
    np.testing.assert_allclose(whole, decayed[0] / decayed[2], rtol=1e-4)

    again = pickle.loads(pickle.dumps(observer.state()))
    assert again["promised"] == observer.promised
    np.testing.assert_array_equal(again["gains"], observer.gains)


def test_one_micro_batch_is_scored_where_that_is_asked_for(make: Any) -> None:
    trainer = make("reference", warmup=2, target_scores=0.0)
    observer = trainer.mixer.observer
    for step in range(2):
        trainer._train_step(step)
    observer.start_window(2, 0)
    trainer._train_step(2)
    sums = observer.end_window(np.full(4, 0.25))
    assert sums[2].sum() == trainer.config.train.micro_batch


def test_a_target_whose_loss_is_not_finite_ends_the_run(make: Any) -> None:
    trainer = make("fastmix")
    trainer._train_step(0)
    with torch.no_grad():
        for parameter in trainer.engine.deepspeed.module.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(RunFailed, match="stopped before step 5: the loss of the target near, far"):
        trainer.mixer.observer.start_window(4, 0)
