"""What DeepSpeed asks of a model-parallel unit, answered by megatron-core's process groups.

DeepSpeed's data parallelism includes megatron's context parallelism: context ranks hold the same
weights, so that ZeRO shards and averages over both. Its model parallelism is tensor x pipeline.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from megatron.core import parallel_state as state


class ModelParallelUnit:
    """Adapter from `megatron.core.parallel_state` to DeepSpeed's `mpu` argument."""

    def get_data_parallel_group(self) -> Any:
        return state.get_data_parallel_group(with_context_parallel=True)

    def get_data_parallel_rank(self) -> int:
        return int(state.get_data_parallel_rank(with_context_parallel=True))

    def get_data_parallel_world_size(self) -> int:
        return int(state.get_data_parallel_world_size(with_context_parallel=True))

    def get_data_parallel_group_ranks(self) -> list[int]:
        return list(dist.get_process_group_ranks(self.get_data_parallel_group()))

    def get_model_parallel_group(self) -> Any:
        return state.get_model_parallel_group()

    def get_model_parallel_rank(self) -> int:
        return dist.get_rank(state.get_model_parallel_group())

    def get_model_parallel_world_size(self) -> int:
        return dist.get_world_size(state.get_model_parallel_group())

    def get_tensor_model_parallel_group(self) -> Any:
        return state.get_tensor_model_parallel_group()

    def get_tensor_model_parallel_rank(self) -> int:
        return int(state.get_tensor_model_parallel_rank())

    def get_tensor_model_parallel_world_size(self) -> int:
        return int(state.get_tensor_model_parallel_world_size())

    def get_tensor_model_parallel_src_rank(self) -> int:
        return int(state.get_tensor_model_parallel_src_rank())

    def get_pipeline_model_parallel_group(self) -> Any:
        return state.get_pipeline_model_parallel_group()

    def get_pipeline_model_parallel_rank(self) -> int:
        return int(state.get_pipeline_model_parallel_rank())

    def get_pipeline_model_parallel_world_size(self) -> int:
        return int(state.get_pipeline_model_parallel_world_size())
