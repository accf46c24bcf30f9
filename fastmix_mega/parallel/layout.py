"""Which process does what: processes, device and megatron-core's groups behind one type."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.errors import UserError
from fastmix_mega.parallel import devices
from fastmix_mega.parallel.attempts import open_world
from fastmix_mega.parallel.leaving import leaving_together

T = TypeVar("T")


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
class Ranks:
    """One way in which processes work together: this process's place, and the group."""

    rank: int
    size: int
    group: Any

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """In place: the sum of the group's tensors."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor


@dataclass(frozen=True)
class Layout:
    """This process's place. Groups are torch.distributed's; ranks count from 0."""

    device: torch.device
    world: Ranks
    data: Ranks
    """Processes that see different sequences with the same part of the model and of a sequence."""
    tensor: Ranks
    """Processes that share every matrix of a stage."""
    pipeline: Ranks
    """Processes that hold successive stages of the model."""
    context: Ranks
    """Processes that hold parts of the same sequences."""
    weights: Ranks
    """data x context: processes that hold the same weights, so that their gradients add up."""
    replica: Ranks
    """tensor x pipeline x context: processes that work on the same sequences."""
    host_group: Any
    """All processes, for tensors on the CPU; None stands for torch.distributed's default."""
    sizes: dict[str, int]
    """For the record: data, tensor, pipeline, interleave, context, sequence, zero."""

    @property
    def is_main(self) -> bool:
        return self.world.rank == 0

    @property
    def rank(self) -> int:
        return self.world.rank

    @property
    def world_size(self) -> int:
        return self.world.size

    @property
    def is_last_stage(self) -> bool:
        """Whether losses are computed here."""
        return self.pipeline.rank == self.pipeline.size - 1

    @property
    def is_reporter(self) -> bool:
        """Whether this process speaks for its replica: one in each that knows the losses."""
        return self.is_last_stage and self.tensor.rank == 0 and self.context.rank == 0

    def sum_over_reporters(self, tensor: torch.Tensor) -> torch.Tensor:
        """In place, on every process: the sum of the reporters' tensors; the others' hold zeros."""
        return self.world.sum(tensor)

    def broadcast_from_main(self, tensor: torch.Tensor) -> torch.Tensor:
        """In place: rank 0's tensor, on every process."""
        if self.world.size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        if self.world.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world.size
        dist.all_gather_object(gathered, value)
        return gathered

    def gather_host(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Every process's tensor on the CPU, by rank; no GPU is waited for."""
        if self.world.size == 1:
            return [tensor]
        gathered = [torch.empty_like(tensor) for _ in range(self.world.size)]
        dist.all_gather(gathered, tensor, group=self.host_group)
        return gathered


@contextmanager
def start(parallel: ParallelSection) -> Iterator[Layout]:
    """Join the process groups, and leave them at the end.

    Under torchrun the environment says who we are; without it this is a world of one process.
    """
    _world_of_one()
    # megatron-core says once per process what it does without these optional packages.
    warnings.filterwarnings("ignore", message=".*(Apex|Transformer Engine).*")
    data_parallel_size(parallel, world_size_from_environment())  # Raises where they do not fit.
    from megatron.core import parallel_state

    from fastmix_mega.parallel import cpu

    cpu.install()
    try:
        device = _device(parallel)
    except UserError as error:
        # The others may not know of it, and the command tells what rank 0 has found.
        if os.environ["RANK"] != "0":
            print(f"rank {os.environ['RANK']}: {error}", file=sys.stderr)
        raise
    _join_groups(parallel, device)

    def destroy() -> None:
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()

    timeout = timedelta(minutes=parallel.timeout_minutes)
    with leaving_together(destroy):
        data_rank = parallel_state.get_data_parallel_rank()
        yield layout_of_groups(
            parallel,
            device,
            replica=ranks_of(_replica_group(data_rank, timeout)),
            # One for all runs of this process: each group keeps threads and sockets.
            host_group=_host_group(timeout) if device.type == "cuda" else None,
        )


def _join_groups(parallel: ParallelSection, device: torch.device) -> None:
    """Torch.distributed's world and megatron-core's groups in it."""
    from megatron.core import parallel_state, tensor_parallel

    timeout = timedelta(minutes=parallel.timeout_minutes)
    open_world("nccl" if device.type == "cuda" else "gloo", timeout)
    parallel_state.initialize_model_parallel(
        **megatron_sizes(parallel),
        distributed_timeout_minutes=int(-(-parallel.timeout_minutes // 1)),
    )
    # Dropout is off and weights come from their own generators: the trackers only have to exist.
    tensor_parallel.model_parallel_cuda_manual_seed(1)


def megatron_sizes(parallel: ParallelSection) -> dict[str, int | None]:
    """What megatron-core's `initialize_model_parallel` calls the sizes of its groups."""
    return {
        "tensor_model_parallel_size": parallel.tensor,
        "pipeline_model_parallel_size": parallel.pipeline,
        "virtual_pipeline_model_parallel_size": (
            parallel.interleave if parallel.interleave > 1 else None
        ),
        "context_parallel_size": parallel.context,
    }


def layout_of_groups(
    parallel: ParallelSection, device: torch.device, replica: Ranks, host_group: Any
) -> Layout:
    """This process's place in megatron-core's groups, which are there.

    Args:
        parallel: how they were made.
        device: this process's.
        replica: see `Layout`; megatron-core has no such group.
        host_group: see `Layout`.
    """
    from megatron.core import parallel_state

    data = ranks_of(parallel_state.get_data_parallel_group())
    return Layout(
        device=device,
        world=ranks_of(dist.group.WORLD),
        data=data,
        tensor=ranks_of(parallel_state.get_tensor_model_parallel_group()),
        pipeline=ranks_of(parallel_state.get_pipeline_model_parallel_group()),
        context=ranks_of(parallel_state.get_context_parallel_group()),
        weights=ranks_of(parallel_state.get_data_parallel_group(with_context_parallel=True)),
        replica=replica,
        host_group=host_group,
        sizes=parallel.sizes(data.size),
    )


def _device(parallel: ParallelSection) -> torch.device:
    """This process's GPU, or the CPU of a machine without one."""
    devices.require_usable_gpus()
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, count = devices.local_rank(), torch.cuda.device_count()
    if number >= count:
        raise UserError(
            f"process {number} of this machine has no GPU: {count} are there; start --nproc {count}"
        )
    devices.prepare_cuda(parallel.tensor, parallel.context)
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def ranks_of(group: Any) -> Ranks:
    return Ranks(dist.get_rank(group), dist.get_world_size(group), group)


def _replica_group(data_rank: int, timeout: timedelta) -> Any:
    """The processes of this one's data-parallel rank: megatron-core has no group for them."""
    data_ranks: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(data_ranks, data_rank)
    replicas = [
        [rank for rank, other in enumerate(data_ranks) if other == number]
        for number in sorted(set(data_ranks))
    ]
    group, _ = dist.new_subgroups_by_enumeration(replicas, timeout=timeout)
    return group


def _host_group(timeout: timedelta) -> Any:
    return dist.new_group(timeout=timeout, backend="gloo") if dist.get_world_size() > 1 else None


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
