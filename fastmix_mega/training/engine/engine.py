"""One optimizer step of a DeepSpeed engine over a megatron-core model, and what it measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastmix_mega.config.schema import Config
from fastmix_mega.model.gpt import build_model
from fastmix_mega.model.initialize import Weights
from fastmix_mega.model.kernels import Kernels, choose
from fastmix_mega.model.masks import conversation_bias
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.parallel.context import positions_of_rank
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.engine.answers import weigh_sets, weigh_step
from fastmix_mega.training.engine.batches import MicroBatch
from fastmix_mega.training.engine.choice_loss import ChoiceLoss, weigh_choices
from fastmix_mega.training.engine.head_meter import HeadMeter
from fastmix_mega.training.engine.hook_meter import HookMeter
from fastmix_mega.training.engine.learning_rate import learning_rate
from fastmix_mega.training.engine.loss_meters import LossMeter
from fastmix_mega.training.engine.meters import GradientAccess, ScoreMeter
from fastmix_mega.training.engine.observation import HeadScores, Observation, SequenceLosses
from fastmix_mega.training.engine.optimizer_access import OptimizerAccess
from fastmix_mega.training.engine.passes import Forward, Passes, build_passes
from fastmix_mega.training.engine.sums import SourceSums
from fastmix_mega.training.engine.zero import initialize_deepspeed


@dataclass(frozen=True)
class SetLosses:
    """Of targets or evaluation sets."""

    losses: NDArray[np.float64]
    """[sets] nats per token that counts; of multiple choice, nats per question."""
    accuracies: dict[int, float]
    """By set of multiple choice, the share of questions whose right choice is the likeliest."""


def _with_questions(
    losses: NDArray[np.float64], questions: dict[int, ChoiceLoss]
) -> NDArray[np.float64]:
    for number, each in questions.items():
        losses[number] = each.losses.mean()
    return losses


class TrainingEngine:
    """Trains on weighted sequences and measures scores on the way.

    Args:
        config: the run.
        shape: of the model.
        layout: this process's place.
        source_count: S.
        observes: what a search observes of the training; None for nothing.
        weights: to start from; None draws them from the seed.
        conversations: whether micro-batches may hold them.
    """

    def __init__(
        self,
        config: Config,
        shape: ModelShape,
        layout: Layout,
        source_count: int,
        observes: Observation | None = None,
        weights: Weights | None = None,
        conversations: bool = False,
    ) -> None:
        self.config = config
        self.layout = layout
        self.kernels: Kernels = choose(
            config, "train" if observes is None else "search", conversations=conversations
        )
        model = build_model(config, shape, layout, self.kernels, weights)
        self.deepspeed = initialize_deepspeed(config, model, layout)
        optimizer = OptimizerAccess(self.deepspeed)
        self.passes: Passes = build_passes(self.deepspeed, optimizer, config)
        self.losses = SourceSums(source_count, layout.device)
        """Unweighted mean loss per sequence, by source, where sequences count with their answer
        tokens if they have a loss mask; reduce with `layout.sum_over_reporters`."""
        self.objective = SourceSums(1, layout.device)
        """Weighted loss per sequence: its mean estimates the loss under the mixture."""
        self.step_losses: list[Tensor] = []
        """Losses of the last step's sequences, [b] per micro-batch; on the replica's reporter."""
        self.meter: ScoreMeter | None = None
        self.loss_meter: LossMeter | None = None
        if isinstance(observes, SequenceLosses):
            self.loss_meter = self._build_loss_meter(observes, shape, source_count)
        elif observes is not None:
            access = GradientAccess(model, optimizer, self.passes, config, layout)
            if isinstance(observes, HeadScores):
                self.meter = HeadMeter(access, source_count)
            else:
                self.meter = HookMeter(access, source_count, observes.parameters)
        positions = positions_of_rank(
            config.train.seq_length, layout.context.rank, layout.context.size
        )
        self._positions = positions.to(layout.device)
        self._dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32

    def _build_loss_meter(
        self, observes: SequenceLosses, shape: ModelShape, source_count: int
    ) -> LossMeter:
        reference_losses = None
        if observes.reference is not None:
            other = build_model(
                self.config, shape, self.layout, self.kernels, observes.reference
            ).eval()

            def reference_losses(batch: MicroBatch) -> Tensor:
                return self._token_losses(other, batch)

        return LossMeter(source_count, self.layout, self._sequence_losses, reference_losses)

    @property
    def micro_batches_per_step(self) -> int:
        train = self.config.train
        return train.global_batch // (train.micro_batch * self.layout.data.size)

    def train_step(self, step: int, micro_batches: Sequence[MicroBatch]) -> bool:
        """Forward, backward and update. The step's loss is sum_k weight_k * loss_k / B.

        With loss masks every answer token of the global batch counts alike (`engine.answers`).

        Returns:
            False, on every process alike, if the gradient was not finite: DeepSpeed has skipped
            the update then, and the step leaves no trace in the sums of losses and scores.
        """
        assert len(micro_batches) == self.micro_batches_per_step
        train, meter = self.config.train, self.meter
        micro_batches = weigh_step(micro_batches, train.global_batch, self.layout.data)
        rate = learning_rate(train.schedule, step, train.steps)
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = rate
        # DeepSpeed averages over data-parallel ranks; the micro-batches are averaged here.
        scale = 1.0 / (train.micro_batch * len(micro_batches))
        sums = [self.losses, self.objective]
        if meter is not None:
            sums += [meter.sums, meter.target_sums]
        if self.loss_meter is not None:
            sums.append(self.loss_meter.sums)
        before = [each.state().clone() for each in sums]
        self.step_losses = []

        def forward(model: Any, number: int, batch: MicroBatch) -> Tensor:
            if meter is not None:
                meter.before_forward(number, batch)
            output = self._token_losses(model, batch)
            if not model.post_process:
                return output
            if self.loss_meter is not None:
                self.loss_meter.observe(batch, output)
            output = self._sequence_losses(batch, output)
            self._record(batch, output)
            return (output * batch.weights).sum() * scale

        if meter is not None:
            meter.begin_step(step, len(micro_batches))
        self.passes.train(micro_batches, forward)
        if meter is not None:
            meter.end_step(micro_batches, scale)
        applied = bool(self.deepspeed.was_step_applied())
        if not applied:
            for each, state in zip(sums, before, strict=True):
                each.load(state)
        return applied

    def release(self) -> None:
        """Let go of the model: DeepSpeed's hooks on autograd's own nodes keep it alive otherwise.

        Without it every run of a process, such as those of a swarm, would keep its model, its
        process groups and their threads.
        """
        self.deepspeed.destroy()

    def _record(self, batch: MicroBatch, per_sequence: Tensor) -> None:
        whole = self._whole_losses(per_sequence)
        if self.layout.is_reporter:
            self.step_losses.append(whole)
            self.losses.add(batch.sources, whole, batch.answers)
            self.objective.add(torch.zeros_like(batch.sources), whole * batch.weights)

    def gradient_norm(self) -> float | None:
        """Global norm of the last step's gradient before clipping; None if there is none."""
        norm = self.deepspeed.get_global_grad_norm()
        return None if norm is None or not math.isfinite(norm) else float(norm)

    def measure_target(
        self,
        step: int,
        micro_batches: Sequence[MicroBatch],
        weights: NDArray[np.float64],
        choices: Sequence[int],
    ) -> NDArray[np.float64]:
        """Set the direction v for the scores from target sequences. Collective.

        Args:
            step: training steps done (for Adam's bias correction).
            micro_batches: this replica's; `sources` number the targets and `weights` average
                each of them.
            weights: [targets], each target's share of the objective.
            choices: per target, sequences per question of multiple choice; 1 for the others.

        Returns:
            [targets] the targets' losses before this step.
        """
        assert self.meter is not None
        micro_batches, questions = self._weigh_sets(micro_batches, choices)
        shares = torch.from_numpy(weights / weights.sum()).to(self.layout.device, torch.float32)
        losses, forward = self._mean_losses(micro_batches, len(weights))

        def again(model: Any, number: int, batch: MicroBatch) -> Tensor:
            del number
            return self._forward(model, batch)

        self.meter.set_direction(step, micro_batches, shares, forward, again)
        return _with_questions(self._sum(losses), questions)

    def evaluate(self, micro_batches: Sequence[MicroBatch], choices: Sequence[int]) -> SetLosses:
        """Mean losses, where `sources` number the sets. Collective; changes nothing.

        Args:
            micro_batches: this replica's; `weights` average each set.
            choices: per set, sequences per question of multiple choice; 1 for the others.
        """
        micro_batches, questions = self._weigh_sets(micro_batches, choices)
        losses, forward = self._mean_losses(micro_batches, len(choices))
        self.passes.evaluate(micro_batches, forward)
        accuracies = {number: float(each.right.mean()) for number, each in questions.items()}
        return SetLosses(_with_questions(self._sum(losses), questions), accuracies)

    def _weigh_sets(
        self, micro_batches: Sequence[MicroBatch], choices: Sequence[int]
    ) -> tuple[Sequence[MicroBatch], dict[int, ChoiceLoss]]:
        """The micro-batches with weights whose gradient is that of each set's mean loss.

        Those of multiple choice depend on the losses of a question's sequences, which other
        processes may hold: they are looked at first, in one more forward pass.
        """
        layout = self.layout
        micro_batches = weigh_sets(micro_batches, len(choices), layout.data)
        if all(count == 1 for count in choices):
            return micro_batches, {}
        size = len(micro_batches[0].sources)
        rows = torch.zeros(2, len(micro_batches) * layout.data.size * size, dtype=torch.float64)
        rows = rows.to(layout.device)

        def place(number: int) -> slice:
            # As `rows_of_rank` deals them out.
            first = (number * layout.data.size + layout.data.rank) * size
            return slice(first, first + size)

        def forward(model: Any, number: int, batch: MicroBatch) -> Tensor:
            output = self._forward(model, batch)
            if model.post_process:
                whole = self._whole_losses(output)
                if layout.is_reporter:
                    # Padding weighs nothing, and is of no set.
                    sets = torch.where(batch.weights != 0, batch.sources, -1)
                    rows[:, place(number)] = torch.stack((whole.double(), sets.double()))
            return output

        self.passes.evaluate(micro_batches, forward)
        losses, sets = self._sum(rows)
        weights, questions = weigh_choices(losses, sets.astype(np.int64), choices)
        weighed = []
        for number, batch in enumerate(micro_batches):
            own = torch.from_numpy(weights[place(number)]).to(batch.weights)
            weighed.append(replace(batch, weights=torch.where(own.isnan(), batch.weights, own)))
        return weighed, questions

    def _mean_losses(
        self, micro_batches: Sequence[MicroBatch], count: int
    ) -> tuple[Tensor, Forward]:
        """[count] fp64 zeros, and the forward pass that fills them with weighted losses."""
        losses = torch.zeros(count, dtype=torch.float64, device=self.layout.device)

        def forward(model: Any, number: int, batch: MicroBatch) -> Tensor:
            output = self._forward(model, batch)
            if model.post_process:
                whole = self._whole_losses(output)
                if self.layout.is_reporter:
                    weights = micro_batches[number].weights
                    losses.index_add_(0, batch.sources, (whole * weights).double())
            return output

        return losses, forward

    def _sum(self, losses: Tensor) -> NDArray[np.float64]:
        return self.layout.sum_over_reporters(losses).cpu().numpy()

    def _forward(self, model: Any, batch: MicroBatch) -> Tensor:
        """A stage's output: on the last one [b] fp32 mean losses of this process's tokens."""
        output = self._token_losses(model, batch)
        return self._sequence_losses(batch, output) if model.post_process else output

    def _token_losses(self, model: Any, batch: MicroBatch) -> Tensor:
        """A stage's output: on the last one [b, s] fp32 losses of this process's tokens."""
        inputs, labels = batch.inputs, batch.labels
        if self.layout.context.size > 1:
            inputs, labels = inputs[:, self._positions], labels[:, self._positions]
        positions = self._positions.expand_as(inputs)
        bias = None
        if batch.documents is not None:
            bias = conversation_bias(batch.documents, self._positions, self._dtype)
        output: Tensor = model(inputs, positions, bias, labels=labels)
        return output.float() if model.post_process else output

    def _sequence_losses(self, batch: MicroBatch, token_losses: Tensor) -> Tensor:
        """[b, s] of this process's tokens -> [b] means over those that count."""
        if batch.loss_mask is None or batch.answers is None:
            return token_losses.mean(1)
        counted = token_losses * batch.loss_mask[:, self._positions]
        # As for text, the mean over the context ranks is the whole sequence's loss.
        return counted.sum(1) * (self.layout.context.size / batch.answers)

    def _whole_losses(self, per_sequence: Tensor) -> Tensor:
        """[b] mean losses of whole sequences; collective over context parallelism."""
        context = self.layout.context
        if context.size == 1:
            return per_sequence.detach()
        return context.sum(per_sequence.detach() / context.size)
