"""One optimizer step of a DeepSpeed engine over a megatron-core model, and what it measures."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastmix_mega.config import Config
from fastmix_mega.data.batches import MicroBatch
from fastmix_mega.engine.meters import GradientAccess, ScoreMeter, build_meter
from fastmix_mega.engine.schedule import learning_rate
from fastmix_mega.engine.sums import SourceSums
from fastmix_mega.model.gpt import ProxyModel, build_model
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.parallel.layout import Layout


class TrainingEngine:
    """Trains on weighted sequences and measures scores on the way.

    Args:
        config: the run.
        shape: of the model.
        layout: this process's place.
        source_count: S.
        scores: `search.scores`, or None to measure nothing (training with a fixed mixture).
    """

    def __init__(
        self,
        config: Config,
        shape: ModelShape,
        layout: Layout,
        source_count: int,
        scores: str | None = None,
    ) -> None:
        self.config = config
        self.layout = layout
        model = build_model(config, shape, layout)
        self.deepspeed = _initialize_deepspeed(config, model, layout)
        self.model: ProxyModel = self.deepspeed.module
        self.losses = SourceSums(source_count, layout.device)
        """Unweighted mean loss per sequence, by source; reduce with `layout.sum_over_data`."""
        self.objective = SourceSums(1, layout.device)
        """Weighted loss per sequence: its mean estimates the loss under the mixture."""
        self.step_losses: list[Tensor] = []
        """Losses of the last step's sequences on this process, [b] per micro-batch."""
        self.meter: ScoreMeter | None = None
        if scores is not None:
            access = GradientAccess(self.model, self.deepspeed, config, layout)
            self.meter = build_meter(scores, access, source_count)
        length = config.train.seq_length
        self._positions = torch.arange(length, device=layout.device).expand(
            config.train.micro_batch, length
        )

    @property
    def micro_batches_per_step(self) -> int:
        train = self.config.train
        return train.global_batch // (train.micro_batch * self.layout.data_size)

    def train_step(self, step: int, micro_batches: Sequence[MicroBatch]) -> bool:
        """Forward, backward and update. The step's loss is sum_k weight_k * loss_k / B.

        Returns:
            False, on every process alike, if the gradient was not finite: DeepSpeed has skipped
            the update then, and the step leaves no trace in the sums of losses and scores.
        """
        assert len(micro_batches) == self.micro_batches_per_step
        train = self.config.train
        rate = learning_rate(train.schedule, step, train.steps)
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = rate
        # DeepSpeed averages over data-parallel ranks; the micro-batches are averaged here.
        scale = 1.0 / (train.micro_batch * len(micro_batches))
        sums = [self.losses, self.objective]
        if self.meter is not None:
            sums.append(self.meter.sums)
        before = [each.state().clone() for each in sums]
        self.step_losses = []
        for batch in micro_batches:
            if self.meter is not None:
                self.meter.before_forward(batch)
            per_sequence = self._sequence_losses(self.deepspeed, batch)  # [b]
            weighted = per_sequence * batch.weights
            self.deepspeed.backward(weighted.sum() * scale, scale_wrt_gas=False)
            self.step_losses.append(per_sequence.detach())
            self.losses.add(batch.sources, per_sequence)
            self.objective.add(torch.zeros_like(batch.sources), weighted)
            if self.meter is not None:
                self.meter.after_backward(batch, scale)
            self.deepspeed.step()
        applied = bool(self.deepspeed.was_step_applied())
        if not applied:
            for each, state in zip(sums, before, strict=True):
                each.load(state)
        return applied

    def gradient_norm(self) -> float | None:
        """Global norm of the last step's gradient before clipping; None if there is none."""
        norm = self.deepspeed.get_global_grad_norm()
        return None if norm is None or not math.isfinite(norm) else float(norm)

    def measure_target(
        self, step: int, micro_batches: Sequence[MicroBatch], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Set the direction v for the scores from target sequences. Collective.

        Args:
            step: training steps done (for Adam's bias correction).
            micro_batches: this process's; `sources` number the targets and `weights` average
                each of them.
            weights: [targets], each target's share of the objective.

        Returns:
            [targets] the targets' losses before this step.
        """
        assert self.meter is not None
        shares = torch.from_numpy(weights / weights.sum()).to(self.layout.device, torch.float32)
        losses = self._zero_losses(len(weights))
        self.meter.begin_target()
        for batch in micro_batches:
            loss = self.meter.add_target(
                batch, batch.weights * shares[batch.sources], self._sequence_losses
            )
            losses.index_add_(0, batch.sources, (loss * batch.weights).double())
        self.meter.end_target(step)
        return self._sum(losses)

    @torch.no_grad()
    def evaluate(self, micro_batches: Sequence[MicroBatch], set_count: int) -> NDArray[np.float64]:
        """[sets] mean losses, where `sources` number the sets. Collective; changes nothing."""
        losses = self._zero_losses(set_count)
        for batch in micro_batches:
            per_sequence = self._sequence_losses(self.model, batch)
            losses.index_add_(0, batch.sources, (per_sequence * batch.weights).double())
        return self._sum(losses)

    def _zero_losses(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.float64, device=self.layout.device)

    def _sum(self, losses: Tensor) -> NDArray[np.float64]:
        return self.layout.sum_over_data(losses).cpu().numpy()

    def _sequence_losses(self, model: Any, batch: MicroBatch) -> Tensor:
        """[b] fp32 mean loss of each sequence."""
        per_token = model(batch.inputs, self._positions, None, labels=batch.labels)  # [b, s]
        return per_token.float().mean(1)


def _initialize_deepspeed(config: Config, model: ProxyModel, layout: Layout) -> Any:
    import deepspeed
    from deepspeed.utils import logger

    from fastmix_mega.parallel.mpu import ModelParallelUnit

    logger.setLevel(logging.WARNING)
    # On CPU the shared-memory collectives would be compiled at the first start, for a minute.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(verbose=False)
    train, options = config.train, config.train.optimizer
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": options.weight_decay},
            {"params": norms, "weight_decay": 0.0},
        ],
        lr=train.schedule.peak,
        betas=(options.beta1, options.beta2),
        eps=options.epsilon,
        fused=layout.device.type == "cuda",
    )
    settings: dict[str, Any] = {
        "train_batch_size": train.global_batch,
        "train_micro_batch_size_per_gpu": train.micro_batch,
        "gradient_accumulation_steps": train.global_batch // (train.micro_batch * layout.data_size),
        "gradient_clipping": options.clip,
        "zero_optimization": {"stage": config.parallel.zero},
        # Any torch optimizer works on ZeRO's flat fp32 partitions; DeepSpeed has to be told.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": math.inf,
    }
    if config.precision == "bf16":
        settings["bf16"] = {"enabled": True}
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=settings,
        mpu=ModelParallelUnit(),
        dist_init_required=False,
    )
    engine.train()
    return engine
