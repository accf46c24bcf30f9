"""The DeepSpeed engine of a run: ZeRO, AdamW and precision as the configuration asks for them."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import nn

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import TrainSection
from fastmix_mega.parallel.layout import Layout


def reduction_bucket(parameters: int) -> int:
    """Numbers in DeepSpeed's buffer for one reduction over data parallelism.

    Args:
        parameters: of this process.
    """
    return min(parameters, 200_000_000)


def initialize_deepspeed(config: Config, model: nn.Module, layout: Layout) -> Any:
    """A DeepSpeed engine around this process's part of the model. Collective.

    Args:
        config: of the run.
        model: this process's part.
        layout: its place.
    """
    import deepspeed
    from deepspeed.utils import logger

    from fastmix_mega.parallel.mpu import ModelParallelUnit

    logger.setLevel(logging.WARNING)
    # None of DeepSpeed's own operators is used. Asked for the list, it would try compilers and GPUs
    # on every rank, and on CPU compile its shared-memory collectives for a minute.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(verbose=False)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=_optimizer(config.train, model),
        config=_settings(config, model, layout.data.size),
        mpu=ModelParallelUnit(),
        dist_init_required=False,
    )
    engine.train()
    return engine


def _optimizer(train: TrainSection, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW that decays matrices alone."""
    options = train.optimizer
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": options.weight_decay},
            {"params": norms, "weight_decay": 0.0},
        ],
        lr=train.schedule.peak,
        betas=(options.beta1, options.beta2),
        eps=options.epsilon,
        # A seventh of the plain one's time, on CPU too, and no temporary copies of the shard.
        fused=True,
    )


def _settings(config: Config, model: nn.Module, replicas: int) -> dict[str, Any]:
    """DeepSpeed's configuration.

    Args:
        config: of the run.
        model: this process's part.
        replicas: data-parallel ones.
    """
    train = config.train
    pipelined = config.parallel.pipeline > 1
    accumulation = train.global_batch // (train.micro_batch * replicas)
    bucket = reduction_bucket(sum(parameter.numel() for parameter in model.parameters()))
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": train.micro_batch,
        # A pipeline schedule accumulates by itself; DeepSpeed's step is then the boundary.
        "gradient_accumulation_steps": 1 if pipelined else accumulation,
        "managed_gradient_accumulation": not pipelined,
        "gradient_clipping": train.optimizer.clip,
        "zero_optimization": {
            "stage": config.parallel.zero,
            # DeepSpeed's own default is a buffer of 500 million numbers, whatever the model.
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            # Stages 1 and 2 make one all-reduce either way; with it they copy the buffer twice.
            "reduce_scatter": config.parallel.zero == 3,
        },
        # Any torch optimizer works on ZeRO's flat fp32 partitions; DeepSpeed has to know.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": math.inf,
        # It would wait for the GPU before and after every micro-batch.
        "timers": {"throughput": {"enabled": False}},
    }
    if config.precision == "bf16":
        # Every backward pass adds to fp32 gradients at once, in a pipeline schedule too.
        settings["bf16"] = {"enabled": True, "immediate_grad_update": True}
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return settings
