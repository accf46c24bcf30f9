"""Which process does what: processes, device and megatron-core's groups behind one type."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from fastmix_mega.config import ParallelSection
from fastmix_mega.errors import UserError


def world_size_from_environment() -> int:
    """How many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def data_parallel_size(parallel: ParallelSection, world_size: int) -> int:
    """Data-parallel ranks that are left; UserError if the layout doesn't divide the processes."""
    model = parallel.tensor * parallel.pipeline * parallel.context
    if world_size % model:
        raise UserError(
            f"parallel: tensor x pipeline x context = {model} does not divide "
            f"{world_size} process(es); start a multiple of {model}"
        )
    return world_size // model


@dataclass(frozen=True)
class Layout:
    """This process's place. Groups are torch.distributed's; ranks count from 0."""

    rank: int
    world_size: int
    device: torch.device
    data_rank: int
    data_size: int
    tensor_rank: int
    tensor_size: int
    data_group: Any
    """Processes that hold the same weights and see different sequences."""
    tensor_group: Any
    sizes: dict[str, int]
    """For the record: data, tensor, pipeline, context, zero, sequence."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum_over_data(self, tensor: torch.Tensor) -> torch.Tensor:
        """In place: the sum of the data-parallel ranks' tensors."""
        if self.data_size > 1:
            dist.all_reduce(tensor, group=self.data_group)
        return tensor

    def broadcast_from_main(self, tensor: torch.Tensor) -> torch.Tensor:
        """In place: rank 0's tensor, on every process."""
        if self.world_size > 1:
            dist.broadcast(tensor, src=0)
        return tensor


@contextmanager
def start(parallel: ParallelSection) -> Iterator[Layout]:
    """Join the process groups, and leave them at the end.

    Under torchrun the environment says who we are; without it this is a world of one process.
    """
    _world_of_one()
    # megatron-core says once per process what it does without these optional packages.
    warnings.filterwarnings("ignore", message=".*(Apex|Transformer Engine).*")
    data_size = data_parallel_size(parallel, world_size_from_environment())
    from megatron.core import parallel_state, tensor_parallel

    from fastmix_mega.parallel import cpu

    cpu.install()
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    device = torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")
    timeout = timedelta(minutes=parallel.timeout_minutes)
    dist.init_process_group("nccl" if on_cuda else "gloo", timeout=timeout)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        context_parallel_size=parallel.context,
        distributed_timeout_minutes=int(-(-parallel.timeout_minutes // 1)),
    )
    # Dropout is off and weights come from their own generators: the trackers only have to exist.
    tensor_parallel.model_parallel_cuda_manual_seed(1)
    try:
        yield Layout(
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
            device=device,
            data_rank=parallel_state.get_data_parallel_rank(),
            data_size=data_size,
            tensor_rank=parallel_state.get_tensor_model_parallel_rank(),
            tensor_size=parallel.tensor,
            data_group=parallel_state.get_data_parallel_group(),
            tensor_group=parallel_state.get_tensor_model_parallel_group(),
            sizes={
                "data": data_size,
                "tensor": parallel.tensor,
                "pipeline": parallel.pipeline,
                "context": parallel.context,
                "sequence": int(parallel.sequence),
                "zero": parallel.zero,
            },
        )
    finally:
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()


def _world_of_one() -> None:
    """Give torch.distributed and DeepSpeed the variables that a launcher would have set."""
    if "RANK" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(
        RANK="0",
        LOCAL_RANK="0",
        WORLD_SIZE="1",
        LOCAL_WORLD_SIZE="1",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
