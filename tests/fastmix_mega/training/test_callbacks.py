"""Callbacks: each guard behind the interface, and a trainer that calls, saves and obeys them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmix_mega.checkpoint.store import checkpoint_steps
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.configuration import parse_config
from fastmix_mega.data.sampler import Draw
from fastmix_mega.errors import RunFailed
from fastmix_mega.files import read_jsonl
from fastmix_mega.methods.fastmix import FastMix
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.callbacks import (
    Callback,
    MixtureWatch,
    SkippedSteps,
    SpikeWatch,
    StepReport,
)
from fastmix_mega.training.guards.mixture import MixtureGuard
from fastmix_mega.training.guards.nonfinite import NonFiniteGuard
from fastmix_mega.training.guards.spikes import LossSpikes
from fastmix_mega.training.stop import StopRequest
from fastmix_mega.training.telemetry import RunLog
from fastmix_mega.training.trainer import Trainer
from fastmix_mega.training.watching import callbacks_of
from tests.launch import column


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    with parallel_layout.start(ParallelSection()) as started:
        yield started


@pytest.fixture
def log(settings: dict[str, Any]) -> RunLog:
    config = parse_config(settings)
    Path(config.run_dir).mkdir(parents=True)
    return RunLog(config, 0, stream=io.StringIO())


def events_of(log: RunLog) -> list[dict[str, Any]]:
    path = log.directory / "events.jsonl"
    return read_jsonl(path) if path.exists() else []


def report(step: int, applied: bool, losses: list[float]) -> StepReport:
    """A step with two sequences, of the sources 0 and 2."""
    draw = Draw(np.array([0, 2]), np.array([5, 9]))
    return StepReport(step, applied, draw, [np.array([0, 1])], [torch.tensor(losses)])


def test_skipped_steps_are_reported_and_end_the_run_when_there_are_too_many(
    log: RunLog, layout: Layout
) -> None:
    watch = SkippedSteps(NonFiniteGuard(2, log.names, layout))
    watch.log = log
    watch.after_step(report(3, True, [1.0, 2.0]))
    assert events_of(log) == []
    watch.after_step(report(4, False, [1.0, float("nan")]))
    assert watch.failure() is None
    (event,) = events_of(log)
    assert (event["step"], event["kind"], event["count"]) == (5, "skipped", 1)
    assert event["sequences"] == [{"source": "gamma", "sample": 9, "rank": 0}]

    # What it has counted is kept; a process without a log counts alike.
    again = SkippedSteps(NonFiniteGuard(2, log.names, layout))
    again.load(watch.state())
    again.after_step(report(5, False, [1.0, 1.0]))
    reason = again.failure()
    assert reason is not None
    assert "2 steps had a gradient that is not finite" in reason
    assert len(events_of(log)) == 1


def test_a_spike_is_logged_once_and_what_is_usual_is_kept(log: RunLog) -> None:
    def line(step: int, loss: float) -> dict[str, Any]:
        return {"step": step, "loss": loss, "source_loss": [loss, None, None, None]}

    random = np.random.default_rng(0)
    watch = SpikeWatch(LossSpikes(5.0, log.names))
    watch.log = log
    for step in range(30):
        watch.after_log(line(step, 3 + 0.05 * float(random.standard_normal())))
    assert events_of(log) == []
    again = SpikeWatch(LossSpikes(5.0, log.names))
    again.log = log
    again.load(watch.state())
    again.after_log(line(30, 9.0))
    (event,) = events_of(log)
    assert (event["step"], event["kind"]) == (30, "spike")
    # One that starts anew has nothing to compare with.
    fresh = SpikeWatch(LossSpikes(5.0, log.names))
    fresh.log = log
    fresh.after_log(line(31, 9.0))
    assert len(events_of(log)) == 1


def test_a_collapsed_mixture_is_logged_when_it_begins(log: RunLog) -> None:
    row = {
        "step": 8,
        "outer_step": 1,
        "mixture": [0.97, 0.01, 0.01, 0.01],
        "scores": [1.0] * 4,
        "score_stderr": [0.1] * 4,
        "counts": [3] * 4,
        "effective_sources": 1.1,
    }
    watch = MixtureWatch(MixtureGuard(1.5, 0.5, log.names))
    watch.log = log
    watch.after_outer_step(row)
    again = MixtureWatch(MixtureGuard(1.5, 0.5, log.names))
    again.log = log
    again.load(watch.state())
    again.after_outer_step(row | {"step": 12, "outer_step": 2})
    (event,) = events_of(log)
    assert (event["kind"], event["outer_step"], event["source"]) == ("collapsed", 1, "alpha")


class Recorder(Callback):
    """Writes down every call, and may ask for the run's end after some step."""

    name = "Recorder"
    resumes = ("steps",)

    def __init__(self, fails_after: int | None = None) -> None:
        self.steps: list[int] = []
        """Of the whole run."""
        self.calls: list[str] = []
        """Of this process."""
        self.phases: list[str] = []
        self.reported = 0
        self._fails_after = fails_after

    def on_phase(self, step: int, name: str) -> None:
        if step <= 1:
            self.phases.append(f"{step} {name}")

    def after_step(self, report: StepReport) -> None:
        self.calls.append("step")
        self.steps.append(report.step)
        assert report.applied
        self.reported += sum(map(len, report.losses))
        assert [len(rows) for rows in report.rows] == [len(each) for each in report.losses]

    def after_outer_step(self, row: dict[str, Any]) -> None:
        self.calls.append(f"outer {row['outer_step']}")

    def after_log(self, values: dict[str, Any]) -> None:
        self.calls.append(f"log {values['step']}")

    def failure(self) -> str | None:
        return "the recorder says so" if len(self.steps) == self._fails_after else None


def train(settings: dict[str, Any], layout: Layout, recorder: Recorder) -> None:
    """A search in this process, with one more callback."""

    def with_recorder(*given: Any) -> list[Callback]:
        return [*callbacks_of(*given), recorder]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastmix_mega.training.trainer.callbacks_of", with_recorder)
        trainer = Trainer(FastMix(parse_config(settings)), layout)
    try:
        assert recorder.log is trainer.log
        trainer.train(StopRequest(settings["run_dir"]))
        trainer.finish()
        trainer.engine.release()
    finally:
        trainer.close()


def test_the_trainer_calls_obeys_and_saves_callbacks(
    settings: dict[str, Any], tmp_path: Path, layout: Layout
) -> None:
    settings["train"]["steps"] = 12
    settings["log"]["every"] = 4
    whole = Recorder()
    train(settings | {"run_dir": str(tmp_path / "whole")}, layout, whole)
    assert whole.steps == list(range(12))
    assert whole.reported == 12 * settings["train"]["global_batch"]
    # Windows of 4 steps after 4 of warm-up; their update comes before the line of the step.
    wanted = ["step"] * 4 + ["log 4"]
    for number, step in ((1, 8), (2, 12)):
        wanted += ["step"] * 4 + [f"outer {number}", f"log {step}"]
    assert whole.calls == wanted
    assert whole.phases == [
        "0 target gradient and training step",
        "1 mixture update and log",
        "1 checkpoint and agreement",
        "1 target gradient and training step",
    ]

    # A callback ends the run after a checkpoint; the next start has its state, and goes on.
    cut = settings | {"run_dir": str(tmp_path / "cut")}
    with pytest.raises(RunFailed, match="stopped after step 6: the recorder says so"):
        train(cut, layout, Recorder(fails_after=6))
    assert checkpoint_steps(tmp_path / "cut" / "checkpoints") == [6]
    again = Recorder()
    train(cut, layout, again)
    assert again.steps == list(range(12))
    assert again.calls == ["step"] * 2 + wanted[9:]
    for file, key in (("metrics.jsonl", "loss"), ("history.jsonl", "mixture")):
        there = column(tmp_path / "cut", file, key)
        assert np.array_equal(there, column(tmp_path / "whole", file, key))
