"""A model that only answers: weights of a starting point, no optimizer, tensors in, logits out."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region
from torch import Tensor

from fastmix_mega.config.schema import Config
from fastmix_mega.model.gpt import build_model, chunks_of
from fastmix_mega.model.initialize import Weights
from fastmix_mega.model.kernels import choose
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.parallel.layout import Layout


class AnsweringModel:
    """Under tensor and pipeline parallelism; every method is collective over a replica.

    Args:
        config: the model and the layout (without sequence and context parallelism).
        shape: of the model.
        layout: this process's place.
        weights: of the model.
    """

    def __init__(self, config: Config, shape: ModelShape, layout: Layout, weights: Weights) -> None:
        assert not config.parallel.sequence
        assert config.parallel.context == config.parallel.interleave == 1
        self.layout = layout
        self.vocab_size = shape.vocab_size
        model = build_model(config, shape, layout, choose(config, "train"), weights)
        self.chunk: Any = chunks_of(model)[0]
        self.chunk.eval()
        self._schedule = get_forward_backward_func()

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        """[b, s] tokens -> [b, s, V] fp32, on every process of the replica."""
        tokens = tokens.to(self.layout.device)
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        if self.layout.pipeline.size == 1:
            return self._whole(self.chunk(tokens, positions, None))
        found: list[Tensor] = []

        def step(_numbers: Any, chunk: Any) -> tuple[Tensor, Any]:
            output = chunk(tokens, positions, None)
            if chunk.post_process:
                found.append(output)
            return output, lambda value: (value, torch.zeros((), dtype=torch.int), None)

        self._schedule(
            forward_step_func=step,
            data_iterator=[iter(())],
            model=[self.chunk],
            num_microbatches=1,
            seq_length=tokens.shape[1],
            micro_batch_size=tokens.shape[0],
            forward_only=True,
        )
        if found:
            whole = self._whole(found[0]).contiguous()
        else:
            shape = (*tokens.shape, self.vocab_size)
            whole = torch.empty(shape, dtype=torch.float32, device=tokens.device)
        last = parallel_state.get_pipeline_model_parallel_last_rank()
        dist.broadcast(whole, src=last, group=self.layout.pipeline.group)
        return whole

    def _whole(self, part: Tensor) -> Tensor:
        """[b, s, V / tensor] -> [b, s, V]"""
        return gather_from_tensor_model_parallel_region(part).float()
