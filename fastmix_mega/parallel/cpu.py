"""Let megatron-core 0.16 run where there is no CUDA.

megatron-core asks `torch.cuda` for the current device and its generator even when its layers are
built on the CPU. On a machine without CUDA those few calls are pointed at the CPU; where CUDA
exists nothing is touched. This is the only place that patches a library.
"""

from __future__ import annotations

from typing import Any

import torch


def install() -> None:
    """Point megatron-core's CUDA calls at the CPU. Does nothing where CUDA is available."""
    if torch.cuda.is_available():
        return
    from megatron.core.models.common.embeddings import rope_utils, rotary_pos_embedding
    from megatron.core.pipeline_parallel import schedules
    from megatron.core.tensor_parallel import random

    cpu = torch.device("cpu")
    # Modules hand the "current device" on as `device=`, which takes a torch.device as well.
    torch.cuda.current_device = lambda: cpu  # type: ignore[assignment,return-value]
    torch.cuda.synchronize = lambda device=None: None  # noqa: ARG005
    torch.cuda.get_rng_state = lambda device=None: torch.get_rng_state()  # noqa: ARG005
    torch.cuda.manual_seed = torch.manual_seed  # type: ignore[assignment]
    # The copy of a tied embedding on the last pipeline stage is moved to the GPU by its name.
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]

    def get_state(device: Any = None, clone: bool = False, graph_safe: bool = False) -> Any:
        del device, clone, graph_safe
        return torch.get_rng_state()

    def set_state(state: Any, device: Any = None, graph_safe: bool = False) -> None:
        del device, graph_safe
        torch.set_rng_state(state)

    random._get_cuda_rng_state = get_state
    random._set_cuda_rng_state = set_state
    schedules.torch = _TorchOnCpu()
    rope_utils.get_pos_emb_on_this_cp_rank = _rotary_part_of_context_rank
    rotary_pos_embedding.get_pos_emb_on_this_cp_rank = _rotary_part_of_context_rank


class _TorchOnCpu:
    """`torch` as the pipeline schedules see it: `zeros(..., device="cuda")` is on the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def zeros(*size: Any, device: Any = None, **options: Any) -> torch.Tensor:
        return torch.zeros(*size, device="cpu" if device == "cuda" else device, **options)


def _rotary_part_of_context_rank(
    positions: torch.Tensor, sequence_dim: int, context_group: Any
) -> torch.Tensor:
    """megatron-core's zigzag selection without its pinned memory and `.cuda()`."""
    size, rank = context_group.size(), context_group.rank()
    chunks = torch.tensor([rank, 2 * size - rank - 1])
    shape = positions.shape
    split = positions.view(*shape[:sequence_dim], 2 * size, -1, *shape[sequence_dim + 1 :])
    part = split.index_select(sequence_dim, chunks)
    return part.view(*shape[:sequence_dim], -1, *shape[sequence_dim + 1 :])
