"""One rank of a run of any size on fake GPUs: groups, kernels and values that are not there.

`enter` changes torch, megatron-core and our own modules for the rest of the process's life: it is
for a process that does nothing else (`planning/dry_run.py` starts one). Fake tensors are on the
"CPU", so that no CUDA is needed; kernels that differ between CPU and CUDA in what they keep for the
backward pass are replaced by ones that keep what CUDA's do.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.parallel.layout import Layout, Ranks, layout_of_groups, megatron_sizes


def enter(parallel: ParallelSection, world_size: int, rank: int) -> Layout:
    """Be one rank of many, on fake GPUs, whose others do not exist.

    Returns:
        The rank's place; its collectives give tensors of the right size at once.
    """
    _use_kernels_of_cuda()
    _answer_without_values()
    return join_world_of_one(parallel, world_size, rank, torch.device("cpu"))


def join_world_of_one(
    parallel: ParallelSection, world_size: int, rank: int, device: torch.device
) -> Layout:
    """torch's fake process groups: collectives return at once, and leave what is there.

    With a real GPU as the device, the rank's own memory is real too.
    """
    from megatron.core import parallel_state, tensor_parallel
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from fastmix_mega.parallel import cpu

    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK="0")
    os.environ.update(LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    cpu.install()
    dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())
    parallel_state.initialize_model_parallel(
        **megatron_sizes(parallel),
        create_gloo_process_groups=False,
    )
    tensor_parallel.model_parallel_cuda_manual_seed(1)
    model = parallel.tensor * parallel.pipeline * parallel.context
    # Of the right size; which ranks are in it makes no difference here.
    replica = Ranks(0, model, parallel_state.get_model_parallel_group())
    return layout_of_groups(parallel, device, replica, host_group=None)


class _FusedNorm(torch.autograd.Function):
    """RMSNorm as CUDA's kernel: its input and one number a row stay for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, hidden.new_empty(hidden.shape[:-1]).float())
        return torch.empty_like(hidden)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, Tensor]:
        hidden, weight, *_ = ctx.saved_tensors
        return torch.empty_like(hidden), torch.empty_like(weight)


class FunctionalOnCuda:
    """torch.nn.functional as the model's layers see it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.nn.functional, name)

    @staticmethod
    def rms_norm(hidden: Tensor, shape: Any, weight: Tensor, eps: float) -> Tensor:
        del shape, eps
        found: Tensor = _FusedNorm.apply(hidden, weight)
        return found

    @staticmethod
    def scaled_dot_product_attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Any = None,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Flash attention: keeps its inputs, its output and one number per query."""
        del attn_mask, enable_gqa
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        found: Tensor = flash(query, key, value, 0.0, is_causal, scale=scale)[0]
        return found


def _use_kernels_of_cuda() -> None:
    from megatron.core.fusions import fused_bias_dropout, fused_bias_swiglu

    from fastmix_mega.model import kernels, layers

    here = kernels.Capabilities(cuda=True, transformer_engine=None, compiler=True)
    kernels.Capabilities.here = staticmethod(lambda: here)  # type: ignore[method-assign]
    replaced: Any = layers
    replaced.functional = FunctionalOnCuda()
    # The mask of a part of the sequence is a name for its kind on CUDA, and no tensor.
    replaced.causal_lower_right = lambda *_: None
    # Compiled, they read their input and write their result.
    fused_bias_swiglu.swiglu = lambda both: torch.empty_like(both.chunk(2, -1)[0])
    add = fused_bias_dropout.bias_dropout_add_unfused
    fused_bias_dropout.bias_dropout_add_fused_train = add(True)
    fused_bias_dropout.bias_dropout_add_fused_inference = add(False)
    fused_bias_swiglu.swiglu_back = lambda _, both: torch.empty_like(both)


def _answer_without_values() -> None:
    """Numbers that our own code takes from tensors on its way through a step."""

    def as_numpy(tensor: Tensor, **_: Any) -> Any:
        return np.ones(tuple(tensor.shape), np.float64)

    def as_list(tensor: Tensor) -> Any:
        # Places are the first one; shares are whole.
        kind = np.ones if tensor.is_floating_point() else np.zeros
        return kind(tuple(tensor.shape), float if tensor.is_floating_point() else int).tolist()

    def apply(module: nn.Module, function: Any, recurse: bool = True) -> nn.Module:
        for child in module.children() if recurse else ():
            child._apply(function)
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            with torch.no_grad():
                made = function(parameter)
            if made is not parameter:
                # torch would exchange the insides of both, which fake tensors do not let it do.
                new = nn.Parameter(made, parameter.requires_grad)
                kept = {
                    key: value for key, value in vars(parameter).items() if key not in vars(new)
                }
                vars(new).update(kept)
                module._parameters[name] = new
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else function(buffer)
        return module

    nn.Module._apply = apply  # type: ignore[method-assign]
    tensors: Any = torch.Tensor
    tensors.numpy, tensors.tolist = as_numpy, as_list
