"""The one training loop, for `fastmix search` and `fastmix train`.

A mixture method sets the mixture (`run.Mixer`); the engine makes the steps; callbacks watch.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastmix_mega.checkpoint.store import Checkpoints, checkpoint_steps
from fastmix_mega.data.repetition import proxy_share
from fastmix_mega.data.run_inputs import open_inputs
from fastmix_mega.data.sampler import MixtureSampler
from fastmix_mega.errors import RunFailed, Stopped, UserError
from fastmix_mega.model.gpt import chunks_of
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.beginning import opening_lines
from fastmix_mega.training.callbacks import StepReport
from fastmix_mega.training.clock import StepClock
from fastmix_mega.training.engine.batches import (
    even_micro_batches,
    load_micro_batch,
    rows_of_rank,
)
from fastmix_mega.training.engine.engine import TrainingEngine
from fastmix_mega.training.engine.learning_rate import learning_rate
from fastmix_mega.training.guards.agreement import Agreement
from fastmix_mega.training.identity import record_run
from fastmix_mega.training.refusals import refusal_on_main
from fastmix_mega.training.run import Mixer, Run, RunMethod
from fastmix_mega.training.stop import StopRequest
from fastmix_mega.training.telemetry import RunLog
from fastmix_mega.training.unwritten import unwritten
from fastmix_mega.training.watching import callbacks_of, watchdog_of
from fastmix_mega.weights.init_from import StartingPoint, open_start_together

ACCURACY = "/accuracy"
"""After the name of a set of multiple choice, in an evaluation's line."""


def run(method: RunMethod) -> None:
    """Run a method's training, from the last checkpoint of the run folder if it has one.

    Collective.

    Raises:
        Stopped: after a checkpoint, if a signal or a stop file asked for it.
    """
    request = StopRequest(method.given.run_dir)
    with parallel_layout.start(method.given.parallel) as layout, request.listening():
        run_within(layout, method, request)


def run_within(layout: Layout, method: RunMethod, request: StopRequest) -> None:
    """As `run`, by processes that have met already: several runs can follow each other."""
    trainer = Trainer(method, layout)
    try:
        with trainer.watchdog:
            trainer.train(request)
        trainer.finish()
        trainer.engine.release()
    finally:
        trainer.close()


class Trainer:
    """Everything that one process holds during a run.

    Args:
        method: sets the mixture, with the run's configuration.
        layout: this process's place.
    """

    def __init__(self, method: RunMethod, layout: Layout) -> None:
        self.method = method
        self.layout = layout
        self.config = config = method.config
        inputs = open_inputs(config, proxy_share(config, method.verb))
        shape = resolve_shape(config.model, inputs.tokenizer.vocab_size)
        start = self._starting_point()
        observes = method.observes(layout, inputs)
        self.engine = TrainingEngine(
            config,
            shape,
            layout,
            source_count=len(config.sources),
            observes=observes,
            weights=start,
            conversations=inputs.conversations,
        )

        train = config.train
        block = train.micro_batch if observes is not None and observes.single_source else 1
        self.sampler = MixtureSampler(
            seed=config.seed,
            source_count=len(config.sources),
            global_batch=train.global_batch,
            block=block,
        )
        self.rows = rows_of_rank(
            global_batch=train.global_batch,
            micro_batch=train.micro_batch,
            data_rank=layout.data.rank,
            data_size=layout.data.size,
        )
        self.run = Run(
            method.given, config, layout, inputs, shape, engine=self.engine, sampler=self.sampler
        )
        self.mixer: Mixer = method.mixer(self.run)

        self.checkpoints = Checkpoints(
            config.run_dir,
            config.checkpoint,
            layout,
            self.engine.deepspeed,
            config.model.tie_embeddings,
        )
        self.agreement = Agreement(layout)
        chunks = chunks_of(self.engine.deepspeed.module)
        self.watchdog = watchdog_of(config, layout, chunks)
        self.clock = StepClock(layout.device, chunks)
        self.callbacks = callbacks_of(config, layout, self.watchdog, self.clock)
        self.start_step = self._resume()
        self.done = self.start_step
        """Training steps made."""
        self._saved = self.start_step
        """Those of the newest checkpoint."""
        self.log: RunLog | None = None
        self._begin_log(None if start is None else start.identity())
        for callback in self.callbacks:
            callback.log = self.log

    def _starting_point(self) -> StartingPoint | None:
        """The weights of `init_from`; None without it, and where the run goes on by itself."""
        path, layout = self.config.init_from, self.layout
        if path is None:
            return None
        directory = Path(self.config.run_dir) / "checkpoints"
        begun = torch.tensor([len(checkpoint_steps(directory))], device=layout.device)
        if layout.broadcast_from_main(begun).item():
            return None
        return open_start_together(path, layout)

    def _begin_log(self, start: dict[str, Any] | None) -> None:
        """Record the run and say what it begins with. Collective.

        Args:
            start: what it starts from.

        Raises:
            RunFailed: if the disk does not take the records.
        """

        def write() -> None:
            record_run(self.method.given, self.method.verb, start)
            self.log = self._open_log()

        refusal = refusal_on_main(self.layout, write)
        if refusal is not None:
            raise RunFailed(
                f"the run's records could not be written to {self.config.run_dir} ({refusal}); "
                "make room on the disk and start the same command again"
            )

    def _open_log(self) -> RunLog:
        log = RunLog(self.config, self.start_step)
        mixture = self.mixer.policy.mixture
        for line in opening_lines(self.run, self.engine.kernels, mixture, self.start_step):
            log.say(line)
        if self.checkpoints.came_from is not None:
            log.layout_changed(self.checkpoints.came_from, self.layout.sizes)
        if log.restarts:
            log.say(f"restarts after failures so far: {log.restarts}")
        return log

    def train(self, request: StopRequest) -> None:
        """Make the steps that are left. Collective.

        Raises:
            Stopped: after a checkpoint, if a signal or a stop file asked for it.
            RunFailed: after a checkpoint, if a callback says so.
        """
        config = self.config
        self._stop_if_asked(request, self.start_step)
        for step in range(self.start_step, config.train.steps):
            if self.mixer.finished:
                break
            self._phase(step, "target gradient and training step")
            self.mixer.before_step(step)
            with self.clock.step():
                report = self._train_step(step)
            done = self.done = step + 1
            for callback in self.callbacks:
                callback.after_step(report)

            self._phase(done, "mixture update and log")
            row = self.mixer.after_step(step)
            if row is not None:
                self._log_outer_step(row)
            last = done == config.train.steps or self.mixer.finished
            if done % config.log.every == 0 or last:
                self._log_step(step)

            loss = None
            if last or (config.evaluation.every and done % config.evaluation.every == 0):
                self._phase(done, "evaluation")
                loss = self._evaluate(done)

            self._phase(done, "checkpoint and agreement")
            due = config.checkpoint.every and done % config.checkpoint.every == 0
            if due or (last and config.checkpoint.final):
                self._save(loss)
            self._fail_if_needed(done)
            if not last:
                self._stop_if_asked(request, done)

        if self.start_step < self.done < config.train.steps and self.log is not None:
            self._log_early_end(self.log)

    def _phase(self, step: int, name: str) -> None:
        for callback in self.callbacks:
            callback.on_phase(step, name)

    def _train_step(self, step: int) -> StepReport:
        policy = self.mixer.policy
        draw = self.sampler.draw(step, policy.distribution)
        weights = policy.loss_weights[draw.sources]
        sources, device = self.run.inputs.sources, self.layout.device
        with self.clock.data():
            batches = [load_micro_batch(sources, draw, rows, weights, device) for rows in self.rows]
        applied = self.engine.train_step(step, batches)
        rows = self.rows if self.layout.is_reporter else []
        return StepReport(step, applied, draw, rows, losses=self.engine.step_losses)

    def _log_outer_step(self, row: dict[str, Any]) -> None:
        assert self.log is not None
        self.log.outer_step(row | {"tokens": self.run.tokens(row["step"])})
        for callback in self.callbacks:
            callback.after_outer_step(row)

    def _log_step(self, step: int) -> None:
        total, _, count, _ = self.engine.losses.take(self.layout.sum_over_reporters)
        objective = self.engine.objective.take(self.layout.sum_over_reporters)
        if objective[2, 0] == 0:
            return  # Every step since the last line was skipped; events.jsonl has them.
        loss = float(objective[0, 0] / objective[2, 0])
        norm = self.engine.gradient_norm()
        fields = {
            name: field for each in self.callbacks for name, field in each.before_log().items()
        }
        if self.log is None:
            return
        train = self.config.train
        means = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        values = {
            "step": step + 1,
            "tokens": self.run.tokens(step + 1),
            "loss": loss,
            "learning_rate": learning_rate(train.schedule, step, train.steps),
            "grad_norm": norm,
            "source_loss": [None if math.isnan(mean) else float(mean) for mean in means],
            "source_count": self.sampler.drawn.tolist(),
        } | fields
        self.log.step(values)
        for callback in self.callbacks:
            callback.after_log(values)

    def _evaluate(self, step: int) -> float | None:
        """Returns the mean of the sets' losses, None without sets."""
        sets = self.run.inputs.evaluation_sets
        if not sets:
            return None
        batches = even_micro_batches(
            sets, self.config.evaluation.sequences, 0, self.config.train.micro_batch, self.layout
        )
        found = self.engine.evaluate(batches, [each.choices for each in sets])
        if self.log is not None:
            named = {each.name: float(loss) for each, loss in zip(sets, found.losses, strict=True)}
            for number, accuracy in found.accuracies.items():
                named[f"{sets[number].name}{ACCURACY}"] = accuracy
            self.log.evaluation(step, named)
        return float(found.losses.mean())

    def _save(self, loss: float | None = None) -> bool:
        """Whether the checkpoint is on disk."""
        if self.checkpoints.save(self.done, self._state(), loss):
            self._saved = self.done
        return self._saved == self.done

    def _stop_if_asked(self, request: StopRequest, done: int) -> None:
        """Raises: Stopped, on every process at the same step."""
        if not self.agreement.stop(done, self.mixer.policy.mixture, request.wanted):
            return
        if self._saved != done and not self._save():
            raise RunFailed("asked to stop, but the checkpoint could not be written (see above)")
        if self.layout.is_main:
            request.obeyed()
        raise Stopped(f"stopped after step {done}; start again to go on")

    def _fail_if_needed(self, done: int) -> None:
        for callback in self.callbacks:
            reason = callback.failure()
            if reason is not None:
                self._save()
                raise RunFailed(f"stopped after step {done}: {reason}")

    def _log_early_end(self, log: RunLog) -> None:
        saved = 1 - self.done / self.config.train.steps
        event = {
            "step": self.done,
            "kind": "converged",
            "outer_step": self.mixer.outer_step,
            "saved_share": saved,
        }
        log.event(
            event,
            f"step {self.done}: the mixture has converged (search.stop_when_converged); "
            f"{saved:.0%} of the steps are saved",
        )

    def _state(self) -> dict[str, Any]:
        meter, loss_meter = self.engine.meter, self.engine.loss_meter
        return {
            "drawn": self.sampler.drawn,
            "losses": self.engine.losses.state(),
            "objective": self.engine.objective.state(),
            "meter": None if meter is None else meter.state(),
            "loss_meter": None if loss_meter is None else loss_meter.state(),
            "mixer": self.mixer.state(),
            "callbacks": {each.name: each.state() for each in self.callbacks},
            "held_out": self.checkpoints.held_out(),
        }

    def _resume(self) -> int:
        found = self.checkpoints.load_latest()
        if found is None:
            return 0
        step, state = found
        if "mixer" not in state:
            raise UserError(
                f"{self.config.run_dir} holds checkpoints of an older version of fastmix-mega, "
                "which this one cannot continue; name another run_dir, or start from the old "
                "weights with init_from"
            )
        self.sampler.drawn = state["drawn"]
        self.engine.losses.load(state["losses"])
        self.engine.objective.load(state["objective"])
        if self.engine.meter is not None:
            self.engine.meter.load(state["meter"])
        if self.engine.loss_meter is not None:
            self.engine.loss_meter.load(state["loss_meter"])
        self.mixer.load(state["mixer"])
        for callback in self.callbacks:
            # One without a state may be younger than the checkpoint.
            callback.load(state["callbacks"].get(callback.name, {}))
        return step

    def finish(self) -> None:
        """Write the mixture and the report, and say where they are. Collective.

        Raises:
            RunFailed: if the disk does not take them, or has not taken the last checkpoint; it says
                what is kept.
        """

        def write() -> None:
            assert self.log is not None
            self._write_results(self.log)

        refusal = refusal_on_main(self.layout, write)
        lacking = []
        if self.config.checkpoint.final and self._saved != self.done:
            lacking.append("the last checkpoint (see above)")
        if refusal is not None:
            lacking.append(f"the results ({refusal})")
        if lacking:
            raise RunFailed(unwritten(lacking, self.done, self._saved, self.config.run_dir))

    def _write_results(self, log: RunLog) -> None:
        from fastmix_mega.report.build import build_report

        directory = Path(self.config.run_dir)
        mixture, lines = self.method.conclude(self.run, self.mixer, self.done)
        mixture.write(directory / "mixture.json")
        for line in lines:
            log.say(line)
        log.say(f"report:  {build_report(directory)}")

    def close(self) -> None:
        """Let go of the log's files."""
        if self.log is not None:
            self.log.close()
