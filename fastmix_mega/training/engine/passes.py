"""How a list of micro-batches goes through the model: whole in one process, or in pipeline stages.

Both ways offer the same three jobs (train, gradients, evaluate) on a `Forward`, which runs one
micro-batch through a part of the model. The rest of the engine does not know which one it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor, nn

from fastmix_mega.config.schema import Config
from fastmix_mega.model.gpt import chunks_of
from fastmix_mega.training.engine.batches import MicroBatch
from fastmix_mega.training.engine.optimizer_access import OptimizerAccess

Forward = Callable[[Any, int, MicroBatch], Tensor]
"""(model, number, micro-batch) -> on the last stage the scalar to differentiate (or any tensor if
nothing is), on earlier stages the model's output as it is. `number` counts the micro-batches."""


class Passes(Protocol):
    def train(self, micro_batches: Sequence[MicroBatch], forward: Forward) -> None:
        """Forward, backward, and one optimizer step on the sum of the scalars."""

    def gradients(
        self,
        micro_batches: Sequence[MicroBatch],
        forward: Forward,
        parameters: Sequence[nn.Parameter],
    ) -> list[Tensor]:
        """The sum of the scalars' gradients, fp32, of this process; training never sees them."""

    def evaluate(self, micro_batches: Sequence[MicroBatch], forward: Forward) -> None:
        """Forward only."""


def build_passes(deepspeed_engine: Any, optimizer: OptimizerAccess, config: Config) -> Passes:
    if config.parallel.pipeline > 1:
        return PipelinePasses(deepspeed_engine, optimizer, config)
    return WholePasses(deepspeed_engine)


class WholePasses:
    """The whole model in this process; DeepSpeed counts the micro-batches of a step."""

    def __init__(self, deepspeed_engine: Any) -> None:
        self._deepspeed = deepspeed_engine
        self._module: nn.Module = deepspeed_engine.module

    def train(self, micro_batches: Sequence[MicroBatch], forward: Forward) -> None:
        for number, batch in enumerate(micro_batches):
            scalar = forward(self._deepspeed, number, batch)
            self._deepspeed.backward(scalar, scale_wrt_gas=False)
            self._deepspeed.step()

    def gradients(
        self,
        micro_batches: Sequence[MicroBatch],
        forward: Forward,
        parameters: Sequence[nn.Parameter],
    ) -> list[Tensor]:
        totals = [torch.zeros_like(value, dtype=torch.float32) for value in parameters]
        # Recomputed activations are only for `backward`; in evaluation mode there are none.
        self._module.eval()
        for number, batch in enumerate(micro_batches):
            scalar = forward(self._module, number, batch)
            # autograd.grad fires no accumulation hook of DeepSpeed's: nothing leaks into training.
            found = torch.autograd.grad(scalar, parameters, materialize_grads=True)
            for total, gradient in zip(totals, found, strict=True):
                total += gradient
        self._module.train()
        return totals

    @torch.no_grad()
    def evaluate(self, micro_batches: Sequence[MicroBatch], forward: Forward) -> None:
        for number, batch in enumerate(micro_batches):
            forward(self._module, number, batch)


class PipelinePasses:
    """A stage of the model, by megatron-core's 1F1B schedules, interleaved or not.

    The backward passes accumulate into the parameters' gradients without DeepSpeed's knowledge
    (`managed_gradient_accumulation: false`); its `step` reduces them over data parallelism. That
    works under ZeRO stage 1 alone.
    """

    def __init__(self, deepspeed_engine: Any, optimizer: OptimizerAccess, config: Config) -> None:
        self._deepspeed = deepspeed_engine
        self._optimizer = optimizer
        self._chunks = chunks_of(deepspeed_engine.module)
        self._micro_batch = config.train.micro_batch
        self._seq_length = config.train.seq_length
        self._schedule = get_forward_backward_func()
        self._tied = self._tied_copy()

    def _tied_copy(self) -> nn.Parameter | None:
        """This stage's copy of a matrix that the first and the last stage share."""
        for chunk in self._chunks:
            ends = chunk.pre_process or chunk.post_process
            if chunk.share_embeddings_and_output_weights and ends:
                return chunk.shared_embedding_or_output_weight()
        return None

    def train(self, micro_batches: Sequence[MicroBatch], forward: Forward) -> None:
        self._run(micro_batches, forward, forward_only=False)
        if self._tied is not None:
            self._sum_tied(self._optimizer.gradient(self._tied))
        self._deepspeed.step()

    def gradients(
        self,
        micro_batches: Sequence[MicroBatch],
        forward: Forward,
        parameters: Sequence[nn.Parameter],
    ) -> list[Tensor]:
        everything = list(self._deepspeed.module.parameters())
        assert all(self._optimizer.gradient(parameter) is None for parameter in everything)
        self._run(micro_batches, forward, forward_only=False)
        found = []
        for parameter in parameters:
            gradient = self._optimizer.gradient(parameter)
            empty = torch.zeros_like(parameter, dtype=torch.float32)
            found.append(empty if gradient is None else empty.copy_(gradient))
            if parameter is self._tied:
                self._sum_tied(found[-1])
        self._optimizer.clear_gradients()
        return found

    @torch.no_grad()
    def evaluate(self, micro_batches: Sequence[MicroBatch], forward: Forward) -> None:
        self._run(micro_batches, forward, forward_only=True)

    def _run(
        self, micro_batches: Sequence[MicroBatch], forward: Forward, forward_only: bool
    ) -> None:
        def step(numbered: Any, chunk: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
            number, batch = next(numbered)
            return forward(chunk, number, batch), _as_it_is

        # Every chunk of a stage goes through the micro-batches by itself.
        iterators = [iter(enumerate(micro_batches)) for _ in self._chunks]
        self._schedule(
            forward_step_func=step,
            data_iterator=iterators,
            model=self._chunks,
            num_microbatches=len(micro_batches),
            seq_length=self._seq_length,
            micro_batch_size=self._micro_batch,
            forward_only=forward_only,
        )

    def _sum_tied(self, gradient: Tensor | None) -> None:
        assert gradient is not None
        dist.all_reduce(gradient, group=parallel_state.get_embedding_group())


def _as_it_is(scalar: Tensor) -> tuple[Tensor, Tensor, None]:
    """The schedules' loss function: (what to differentiate, number of tokens, what to return)."""
    return scalar, torch.zeros((), dtype=torch.int, device=scalar.device), None
