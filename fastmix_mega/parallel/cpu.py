"""Let megatron-core 0.16 run where there is no CUDA, and let its memory be kept there.

megatron-core asks `torch.cuda` for the current device and its generator even when its layers are
built on the CPU. On a machine without CUDA those few calls are pointed at the CPU; where CUDA
exists nothing is touched. This is the only place that patches a library.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def install() -> None:
    """Point megatron-core's CUDA calls at the CPU. Does nothing where CUDA is available."""
    if torch.cuda.is_available():
        return
    keep_freed_memory()
    from megatron.core.models.common.embeddings import rope_utils, rotary_pos_embedding
    from megatron.core.pipeline_parallel import schedules
    from megatron.core.tensor_parallel import cross_entropy, random

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
    cross_entropy.VocabParallelCrossEntropy.calculate_logits_max = staticmethod(_logits_max)
    rope_utils.get_pos_emb_on_this_cp_rank = _rotary_part_of_context_rank
    rotary_pos_embedding.get_pos_emb_on_this_cp_rank = _rotary_part_of_context_rank


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, as torch's allocator does on CUDA. Elsewhere nothing is done.

    By itself it asks the kernel anew for every tensor beyond 32 MB, which zeroes it page by page:
    such as the flat gradients that ZeRO makes in every step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


class _TorchOnCpu:
    """`torch` as the pipeline schedules see it: `zeros(..., device="cuda")` is on the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def zeros(*size: Any, device: Any = None, **options: Any) -> torch.Tensor:
        return torch.zeros(*size, device="cpu" if device == "cuda" else device, **options)


def _logits_max(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """megatron-core's, which asks for the places of the maxima too: five times slower on CPU.

    Args:
        logits: [s, b, V / tensor].

    Returns:
        The logits in fp32, and their maxima [s, b].
    """
    logits = logits.float()
    return logits, logits.amax(-1)


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
