"""ONE training loop for `search` and `train`: they differ only in who sets the mixture.

fastmix search CONFIG [--nproc N] [key.path=value ...]
fastmix train  CONFIG [--nproc N] [key.path=value ...]
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fastmix_mega.checkpoint import Checkpoints
from fastmix_mega.checkpoint.store import checkpoint_steps
from fastmix_mega.config import Config
from fastmix_mega.data.batches import even_micro_batches, load_micro_batch, rows_of_rank
from fastmix_mega.data.conversations import ConversationSource
from fastmix_mega.data.inputs import Inputs, open_inputs
from fastmix_mega.data.sampler import MixtureSampler
from fastmix_mega.engine.engine import TrainingEngine
from fastmix_mega.engine.loss_meters import EXCESS_LOSSES
from fastmix_mega.engine.meters import needs_single_source
from fastmix_mega.engine.schedule import learning_rate
from fastmix_mega.errors import RunFailed
from fastmix_mega.files import write_json
from fastmix_mega.guards.agreement import Agreement
from fastmix_mega.guards.mixture import MixtureGuard, describe_mixture_event
from fastmix_mega.guards.nonfinite import NonFiniteGuard
from fastmix_mega.guards.spikes import LossSpikes, describe_spike
from fastmix_mega.guards.watchdog import Member, Watchdog
from fastmix_mega.handover.export import describe
from fastmix_mega.identity import record_run
from fastmix_mega.mixture.controller import MixtureEstimate
from fastmix_mega.mixture.loss_loop import LossLoop
from fastmix_mega.mixture.methods import GRADIENTS, as_method, measured, reference_folder
from fastmix_mega.mixture.outer import OuterLoop
from fastmix_mega.mixture.policy import MixturePolicy
from fastmix_mega.mixture.rule import FloatArray
from fastmix_mega.mixture.stages import Stage, average_mixture, resolve_stages, stage_at
from fastmix_mega.mixture.start import (
    SearchStart,
    begins_with_token_pairs,
    search_start,
    token_pairs,
)
from fastmix_mega.model.gpt import chunks_of
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import devices
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.result import mixture_file, share_rows, share_table
from fastmix_mega.stop import Stopped, StopRequest
from fastmix_mega.telemetry import RunLog
from fastmix_mega.weights.start import StartingPoint, open_start_together

ACCURACY = "/accuracy"
"""After the name of a set of multiple choice, in an evaluation's line."""
Mode = Literal["search", "train"]


def run(config: Config, mode: Mode) -> None:
    """Search or train, from the last checkpoint of the run folder if it has one. Collective.

    Raises:
        Stopped: after a checkpoint, if a signal or a stop file asked for it.
    """
    request = StopRequest(config.run_dir)
    with parallel_layout.start(config.parallel) as layout, request.listening():
        run_within(layout, config, mode, request)


def run_within(layout: Layout, config: Config, mode: Mode, request: StopRequest) -> None:
    """As `run`, by processes that have met already: several runs can follow each other."""
    loop = TrainingLoop(config, mode, layout)
    try:
        with loop.watchdog:
            loop.run(request)
        loop.finish()
        loop.engine.release()
    finally:
        loop.close()


class TrainingLoop:
    """Everything that one process holds during a run."""

    def __init__(self, config: Config, mode: Mode, layout: Layout) -> None:
        self.given = config
        """As the user has it; `config` has what the method fixes."""
        config = as_method(config) if mode == "search" else config
        self.config = config
        self.mode = mode
        self.layout = layout
        self.inputs: Inputs = open_inputs(config)
        names = config.source_names
        self.shape = resolve_shape(config.model, self.inputs.tokenizer.vocab_size)
        scores = measured(config) if mode == "search" else None
        self.start = self._starting_point()
        reference = None
        if scores == EXCESS_LOSSES:
            reference = open_start_together(reference_folder(config.run_dir), layout)
        self.engine = TrainingEngine(
            config,
            self.shape,
            layout,
            len(names),
            scores,
            self.start,
            self.inputs.conversations,
            reference,
        )
        self.outer: OuterLoop | LossLoop | None = None
        self.search_start: SearchStart | None = None
        self.stages: list[Stage] = []
        self.drawn_at: list[NDArray[np.int64]] = []
        """Per stage that has begun: [S] samples drawn before it."""
        if mode == "search":
            self.search_start = search_start(
                config, self.inputs.sources, self.inputs.tokenizer.sha256, self._token_pairs()
            )
            kind = OuterLoop if config.method in GRADIENTS else LossLoop
            self.outer = kind(config, layout, self.engine, self.inputs.targets, self.search_start)
        else:
            tokens = [source.num_tokens for source in self.inputs.sources]
            self.stages = resolve_stages(config, tokens)
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
        guards = config.guards
        self.skipped = NonFiniteGuard(guards.max_skipped, names, layout)
        self.spikes = LossSpikes(guards.spike, names)
        self.mixture_guard = MixtureGuard(guards.min_effective_sources, guards.max_doubtful, names)
        member = Member(layout.rank, layout.world_size, lockstep=layout.pipeline.size == 1)
        self.watchdog = Watchdog(member, 60 * guards.hang_minutes, config.run_dir)
        for chunk in chunks_of(self.engine.deepspeed.module):
            chunk.register_forward_pre_hook(self.watchdog.beat)
        self.start_step = self._resume()
        self.done = self.start_step
        """Training steps made."""
        self.log: RunLog | None = None
        if layout.is_main:
            record_run(self.given, mode, None if self.start is None else self.start.identity())
            self.log = RunLog(config, self.start_step)
            self.log.say(devices.describe(layout.device.type))
            self.log.say(f"kernels: {self.engine.kernels}")
            for source in (*self.inputs.sources, *self.inputs.targets):
                if isinstance(source, ConversationSource):
                    self.log.say(f"{source.name}: {source.fit.describe()}")
            if self.start_step:
                self.log.say(f"continuing after step {self.start_step}")

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

    def _token_pairs(self) -> FloatArray | None:
        """[S] what the search begins with if token pairs say so. Collective: rank 0 reads for all,
        and its sums are everyone's."""
        inputs = self.inputs
        if not begins_with_token_pairs(self.config, inputs.sources, inputs.targets):
            return None
        told = torch.zeros(len(inputs.sources), dtype=torch.float64)
        if self.layout.is_main:
            told = torch.from_numpy(token_pairs(self.config, inputs))
        told = self.layout.broadcast_from_main(told.to(self.layout.device))
        found: FloatArray = told.cpu().numpy()
        return found

    @property
    def policy(self) -> MixturePolicy:
        if self.outer is not None:
            return self.outer.policy
        return MixturePolicy(self.stages[max(0, len(self.drawn_at) - 1)].mixture)

    def run(self, request: StopRequest) -> None:
        config = self.config
        saved = self.start_step
        self._stop_if_asked(request, self.start_step, saved)
        for step in range(self.start_step, config.train.steps):
            if self.converged:
                break
            self.watchdog.phase(step, "target gradient and training step")
            if self.outer is not None:
                self.outer.before_step(step)
            elif stage_at(self.stages, step) == len(self.drawn_at):
                self.drawn_at.append(self.sampler.drawn.copy())
            self._train_step(step)
            done = self.done = step + 1
            self.watchdog.phase(done, "mixture update and log")
            row = None if self.outer is None else self.outer.after_step(step)
            if row is not None:
                assert self.log is not None
                self.log.outer_step(row | {"tokens": self._tokens(done)})
                for event in self.mixture_guard.check(row):
                    self.log.event(event, describe_mixture_event(event))
            last = done == config.train.steps or self.converged
            if done % config.log.every == 0 or last:
                self._log_step(step)
            loss = None
            if last or (config.evaluation.every and done % config.evaluation.every == 0):
                self.watchdog.phase(done, "evaluation")
                loss = self._evaluate(done)
            self.watchdog.phase(done, "checkpoint and agreement")
            due = config.checkpoint.every and done % config.checkpoint.every == 0
            if due or (last and config.checkpoint.final):
                saved = done if self.checkpoints.save(done, self._state(), loss) else saved
            if self.skipped.too_many:
                self._give_up(done)
            if not last:
                self._stop_if_asked(request, done, saved)

        if self.start_step < self.done < config.train.steps and self.log is not None:
            self._tell_converged()

    @property
    def converged(self) -> bool:
        """Whether a search has ended before its last step, on every process alike."""
        return self.outer is not None and self.outer.converged

    def _tell_converged(self) -> None:
        assert self.outer is not None
        assert self.log is not None
        saved = 1 - self.done / self.config.train.steps
        event = {
            "step": self.done,
            "kind": "converged",
            "outer_step": self.outer.outer_step,
            "saved_share": saved,
        }
        self.log.event(
            event,
            f"step {self.done}: the mixture has converged (search.stop_when_converged); "
            f"{saved:.0%} of the steps are saved",
        )

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
        total, _, count, _ = self.engine.losses.take(self.layout.sum_over_reporters)
        objective = self.engine.objective.take(self.layout.sum_over_reporters)
        if objective[2, 0] == 0:
            return  # Every step since the last line was skipped; events.jsonl tells of them.
        loss = float(objective[0, 0] / objective[2, 0])
        norm = self.engine.gradient_norm()
        if self.log is not None:
            train = self.config.train
            means = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
            source_losses = [None if math.isnan(mean) else float(mean) for mean in means]
            self.log.step(
                {
                    "step": step + 1,
                    "tokens": self._tokens(step + 1),
                    "loss": loss,
                    "learning_rate": learning_rate(train.schedule, step, train.steps),
                    "grad_norm": norm,
                    "source_loss": source_losses,
                    "source_count": self.sampler.drawn.tolist(),
                }
            )
            spike = self.spikes.check(step + 1, loss, source_losses)
            if spike is not None:
                self.log.event(spike, describe_spike(spike))

    def _evaluate(self, step: int) -> float | None:
        """Returns the mean of the sets' losses, None without sets."""
        sets = self.inputs.evaluation_sets
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

    def _state(self) -> dict[str, Any]:
        meter = self.engine.meter
        return {
            "drawn": self.sampler.drawn,
            "drawn_at": list(self.drawn_at),
            "losses": self.engine.losses.state(),
            "objective": self.engine.objective.state(),
            "meter": None if meter is None else meter.state(),
            "outer": None if self.outer is None else self.outer.state(),
            "skipped": self.skipped.count,
            "spikes": self.spikes.state(),
            "mixture_guard": self.mixture_guard.state(),
            "held_out": self.checkpoints.held_out(),
        }

    def _resume(self) -> int:
        found = self.checkpoints.load_latest()
        if found is None:
            return 0
        step, state = found
        self.sampler.drawn = state["drawn"]
        self.drawn_at = list(state["drawn_at"])
        self.skipped.count = state["skipped"]
        self.spikes.load(state["spikes"])
        self.mixture_guard.load(state["mixture_guard"])
        self.engine.losses.load(state["losses"])
        self.engine.objective.load(state["objective"])
        if self.outer is not None:
            if self.engine.meter is not None:
                self.engine.meter.load(state["meter"])
            self.outer.load(state["outer"])
        return step

    def finish(self) -> None:
        """Write the mixture and the report, and say where they are; on rank 0."""
        if self.log is None:
            return
        from fastmix_mega.report.build import build_report

        config, directory = self.given, Path(self.config.run_dir)
        path = directory / "mixture.json"
        ours = (config, self.inputs, self.shape, self.layout)
        if self.outer is None:
            weights = average_mixture(self.stages, config.train.steps)
            estimate = MixtureEstimate(weights, np.zeros_like(weights))
            mixture_file(*ours, estimate, None).write(path)
            rows = share_rows(
                config.source_names,
                self.stages,
                self.drawn_at,
                self.sampler.drawn,
                config.train.steps,
            )
            write_json(directory / "shares.json", rows)
            self.log.say(share_table(rows))
        else:
            outer = self.outer
            # Raw gradients tell of no step of Adam's.
            gains = None if config.method == "doge" else outer.gains
            mixture = mixture_file(
                *ours,
                outer.result(),
                outer.outer_step,
                None if gains is None else gains * outer.gain_scale,
                self.search_start,
                outer.target_result() if config.targets else None,
                self.done,
            )
            if gains is not None:
                mixture.search["gain_scale"] = round(outer.gain_scale, 6)
            mixture.write(path)
            limits = config.search.constraints
            budget = None if limits is None else limits.budget_tokens
            self.log.say("\n".join(describe(mixture, budget)))
            if limits is not None:
                cost = mixture.search["predicted_cost_of_constraints"]
                self.log.say(f"predicted cost of the constraints: {cost:+.4f} nats per token")
            self.log.say(f"mixture: {path}")
        self.log.say(f"report:  {build_report(directory)}")
