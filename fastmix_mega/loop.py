"""ONE training loop for `search` and `train`: they differ only in who sets the mixture.

fastmix search CONFIG [--nproc N] [key.path=value ...]
fastmix train  CONFIG [--nproc N] [key.path=value ...]
"""

from __future__ import annotations

import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fastmix_mega.checkpoint import Checkpoints
from fastmix_mega.config import Config
from fastmix_mega.data.batches import even_micro_batches, load_micro_batch, rows_of_rank
from fastmix_mega.data.inputs import Inputs, open_inputs
from fastmix_mega.data.sampler import MixtureSampler
from fastmix_mega.engine.engine import TrainingEngine
from fastmix_mega.engine.meters import needs_single_source
from fastmix_mega.engine.schedule import learning_rate
from fastmix_mega.errors import RunFailed
from fastmix_mega.guards.agreement import Agreement
from fastmix_mega.guards.nonfinite import NonFiniteGuard
from fastmix_mega.identity import record_run
from fastmix_mega.mixture.controller import MixtureEstimate
from fastmix_mega.mixture.cost import cost_in_proxy_runs
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, resolve_mixture
from fastmix_mega.mixture.outer import OuterLoop
from fastmix_mega.mixture.policy import MixturePolicy
from fastmix_mega.mixture.rule import effective_sources, entropy
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.stop import Stopped, StopRequest
from fastmix_mega.telemetry import RunLog

Mode = Literal["search", "train"]


def run(config: Config, mode: Mode) -> None:
    """Search or train, from the last checkpoint of the run folder if it has one. Collective.

    Raises:
        Stopped: after a checkpoint, if a signal or a stop file asked for it.
    """
    with parallel_layout.start(config.parallel) as layout:
        request = StopRequest(config.run_dir)
        with request.listening():
            loop = TrainingLoop(config, mode, layout)
            try:
                loop.run(request)
            finally:
                loop.close()


class TrainingLoop:
    """Everything that one process holds during a run."""

    def __init__(self, config: Config, mode: Mode, layout: Layout) -> None:
        self.config = config
        self.mode = mode
        self.layout = layout
        self.inputs: Inputs = open_inputs(config)
        names = config.source_names
        tokens = [source.num_tokens for source in self.inputs.sources]
        self.shape = resolve_shape(config.model, self.inputs.tokenizer.vocab_size)
        scores = config.search.scores if mode == "search" else None
        self.engine = TrainingEngine(config, self.shape, layout, len(names), scores)
        self.outer: OuterLoop | None = None
        if mode == "search":
            initial = resolve_mixture(config.search.initial, names, tokens, "search.initial")
            self.outer = OuterLoop(config, layout, self.engine, self.inputs.targets, initial)
        else:
            mixture = resolve_mixture(config.mixture, names, tokens, "mixture")
            self._fixed = MixturePolicy(mixture)
        block = config.train.micro_batch if scores and needs_single_source(scores) else 1
        self.sampler = MixtureSampler(config.seed, len(names), config.train.global_batch, block)
        self.rows = rows_of_rank(
            config.train.global_batch,
            config.train.micro_batch,
            layout.data.rank,
            layout.data.size,
        )
        self.checkpoints = Checkpoints(
            config.run_dir,
            config.checkpoint,
            layout,
            self.engine.deepspeed,
            config.model.tie_embeddings,
        )
        self.agreement = Agreement(layout)
        self.skipped = NonFiniteGuard(config.guards.max_skipped, names, layout)
        self.start_step = self._resume()
        self.log: RunLog | None = None
        if layout.is_main:
            record_run(config, mode)
            self.log = RunLog(config, self.start_step)
            if self.start_step:
                self.log.say(f"continuing after step {self.start_step}")

    @property
    def policy(self) -> MixturePolicy:
        return self._fixed if self.outer is None else self.outer.policy

    def run(self, request: StopRequest) -> None:
        config = self.config
        saved = self.start_step
        self._stop_if_asked(request, self.start_step, saved)
        for step in range(self.start_step, config.train.steps):
            if self.outer is not None:
                self.outer.before_step(step)
            self._train_step(step)
            row = None if self.outer is None else self.outer.after_step(step)
            done = step + 1
            if row is not None:
                assert self.log is not None
                self.log.outer_step(row | {"tokens": self._tokens(done)})
            last = done == config.train.steps
            if done % config.log.every == 0 or last:
                self._log_step(step)
            loss = None
            if last or (config.evaluation.every and done % config.evaluation.every == 0):
                loss = self._evaluate(done)
            due = config.checkpoint.every and done % config.checkpoint.every == 0
            if due or (last and config.checkpoint.final):
                saved = done if self.checkpoints.save(done, self._state(), loss) else saved
            if self.skipped.too_many:
                self._give_up(done)
            if not last:
                self._stop_if_asked(request, done, saved)
        if self.layout.is_main:
            self._finish()

    def _stop_if_asked(self, request: StopRequest, done: int, saved: int) -> None:
        """Raises: Stopped, on every process at the same step."""
        if not self.agreement.stop(done, self.policy.mixture, request.wanted):
            return
        if saved != done and not self.checkpoints.save(done, self._state()):
            raise RuntimeError("asked to stop, but the checkpoint could not be written (see above)")
        if self.layout.is_main:
            request.obeyed()
        raise Stopped(f"stopped after step {done}; start again to go on")

    def _give_up(self, done: int) -> None:
        self.checkpoints.save(done, self._state())
        raise RunFailed(
            f"stopped after step {done}: {self.skipped.count} steps had a gradient that is not "
            "finite. events.jsonl in the run folder names the sequences. Lower train.schedule.peak "
            "or mend the sources; then start again, or raise guards.max_skipped to go on"
        )

    def close(self) -> None:
        if self.log is not None:
            self.log.close()

    def _train_step(self, step: int) -> None:
        policy = self.policy
        draw = self.sampler.draw(step, policy.law)
        weights = policy.weights[draw.sources]
        sources, device = self.inputs.sources, self.layout.device
        batches = [load_micro_batch(sources, draw, rows, weights, device) for rows in self.rows]
        if not self.engine.train_step(step, batches):
            rows = self.rows if self.layout.is_reporter else []
            event = self.skipped.report(step, draw, rows, self.engine.step_losses)
            if self.log is not None:
                self.log.event(event, self.skipped.describe(event))

    def _tokens(self, steps: int) -> int:
        return steps * self.config.train.global_batch * self.config.train.seq_length

    def _log_step(self, step: int) -> None:
        total, _, count = self.engine.losses.take(self.layout.sum_over_reporters)
        objective = self.engine.objective.take(self.layout.sum_over_reporters)
        if objective[2, 0] == 0:
            return  # Every step since the last line was skipped; events.jsonl tells of them.
        loss = float(objective[0, 0] / objective[2, 0])
        norm = self.engine.gradient_norm()
        if self.log is not None:
            train = self.config.train
            means = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
            self.log.step(
                {
                    "step": step + 1,
                    "tokens": self._tokens(step + 1),
                    "loss": loss,
                    "learning_rate": learning_rate(train.schedule, step, train.steps),
                    "grad_norm": norm,
                    "source_loss": [None if math.isnan(mean) else float(mean) for mean in means],
                    "source_count": self.sampler.drawn.tolist(),
                }
            )

    def _evaluate(self, step: int) -> float | None:
        """Returns the mean of the sets' losses, None without sets."""
        sets = self.inputs.evaluation_sets
        if not sets:
            return None
        batches = even_micro_batches(
            sets, self.config.evaluation.sequences, 0, self.config.train.micro_batch, self.layout
        )
        losses = self.engine.evaluate(batches, len(sets))
        if self.log is not None:
            named = zip(sets, losses, strict=True)
            self.log.evaluation(step, {each.name: float(loss) for each, loss in named})
        return float(losses.mean())

    def _state(self) -> dict[str, Any]:
        meter = self.engine.meter
        return {
            "drawn": self.sampler.drawn,
            "losses": self.engine.losses.state(),
            "objective": self.engine.objective.state(),
            "meter": None if meter is None else meter.state(),
            "outer": None if self.outer is None else self.outer.state(),
            "skipped": self.skipped.count,
            "held_out": self.checkpoints.held_out(),
        }

    def _resume(self) -> int:
        found = self.checkpoints.load_latest()
        if found is None:
            return 0
        step, state = found
        self.sampler.drawn = state["drawn"]
        self.skipped.count = state["skipped"]
        self.engine.losses.load(state["losses"])
        self.engine.objective.load(state["objective"])
        if self.outer is not None:
            assert self.engine.meter is not None
            self.engine.meter.load(state["meter"])
            self.outer.load(state["outer"])
        return step

    def _finish(self) -> None:
        """Write the mixture and the report, and say where they are."""
        from fastmix_mega.report.build import build_report

        assert self.log is not None
        if self.outer is None:
            weights = self._fixed.mixture
            estimate = MixtureEstimate(weights, np.zeros_like(weights))
        else:
            estimate = self.outer.result()
        path = Path(self.config.run_dir) / "mixture.json"
        self._mixture_file(estimate).write(path)
        report = build_report(Path(self.config.run_dir))
        if self.mode == "search":
            self.log.say(f"mixture: {path}\nreport:  {report}")
        else:
            self.log.say(f"report:  {report}")

    def _mixture_file(self, estimate: MixtureEstimate) -> MixtureFile:
        config, tokenizer = self.config, self.inputs.tokenizer
        train_tokens = self._tokens(config.train.steps)
        weights = estimate.weights / estimate.weights.sum()
        outer_steps = 0 if self.outer is None else self.outer.outer_step
        return MixtureFile(
            sources=[
                MixtureSource(
                    name=given.name,
                    weight=float(weight),
                    stderr=float(error),
                    prefix=given.prefix,
                    tokens=source.num_tokens,
                    epochs_at_budget=float(weight) * train_tokens / source.num_tokens,
                )
                for given, source, weight, error in zip(
                    config.sources,
                    self.inputs.sources,
                    weights,
                    estimate.standard_errors,
                    strict=True,
                )
            ],
            targets=[target.model_dump(mode="json") for target in config.targets],
            tokenizer={
                "path": config.tokenizer,
                "sha256": tokenizer.sha256,
                "vocab_size": tokenizer.vocab_size,
            },
            search={
                "method": config.method if self.mode == "search" else "fixed",
                "config_sha256": config.fingerprint(),
                "seed": config.seed,
                "steps": config.train.steps,
                "outer_steps": outer_steps,
                "train_tokens": train_tokens,
                "cost_in_proxy_runs": round(cost_in_proxy_runs(config, self.shape, outer_steps), 4),
                "world_size": self.layout.world_size,
                "layout": self.layout.sizes,
                "entropy": entropy(weights),
                "effective_sources": effective_sources(weights),
                "warnings": search_warnings(config, estimate, outer_steps, self.mode),
            },
            versions={
                "fastmix-mega": version("fastmix-mega"),
                "torch": torch.__version__,
                "deepspeed": version("deepspeed"),
                "megatron-core": version("megatron-core"),
                "python": platform.python_version(),
            },
        )


def search_warnings(
    config: Config, estimate: MixtureEstimate, outer_steps: int, mode: Mode
) -> list[str]:
    """What a reader of the mixture must know, in plain words."""
    warnings: list[str] = []
    if mode == "train":
        return warnings
    if outer_steps < 10:
        warnings.append(
            f"The mixture was updated only {outer_steps} times; search for more steps, or set "
            "search.every lower, before you rely on it."
        )
    if effective_sources(estimate.weights) < min(2.0, len(estimate.weights)):
        warnings.append(
            "The mixture has collapsed to almost one source; look for a source that overlaps the "
            "target, or lower search.step."
        )
    uniform = 1 / len(estimate.weights)
    far = np.abs(estimate.weights - uniform) > 2 * estimate.standard_errors
    if config.method == "fastmix" and config.search.step > 0 and not far.any():
        warnings.append(
            "No source's weight differs from uniform by more than two standard errors: the search "
            "was too short or too noisy to tell the sources apart."
        )
    return warnings
