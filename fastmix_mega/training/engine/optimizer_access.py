"""The inner parts of DeepSpeed's optimizers that scores and pipelines need, behind one type.

DeepSpeed has two: ZeRO's, and for bf16 weights under stage 1 one of its own, which keeps gradients
in fp32. This is the only place that knows how they differ.
"""

from __future__ import annotations

from typing import Any

from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from torch import Tensor, nn


class OptimizerAccess:
    """Reads (and clears) gradients and Adam's moments of a DeepSpeed engine."""

    def __init__(self, deepspeed_engine: Any) -> None:
        self._optimizer = deepspeed_engine.optimizer
        self._is_bf16 = isinstance(self._optimizer, BF16_Optimizer)
        self._places: dict[int, tuple[int, int]] = {}
        if self._is_bf16:
            for group, parameters in enumerate(self._optimizer.bf16_groups):
                for index, parameter in enumerate(parameters):
                    self._places[id(parameter)] = (group, index)

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """What the backward passes since the last step have added up; None for nothing."""
        if not self._is_bf16:
            found: Tensor | None = self._optimizer.get_param_gradient_attribute(parameter)
            return found
        group, index = self._places[id(parameter)]
        if not self._optimizer.fp32_groups_has_gradients[group][index]:
            return None
        buffer: Tensor = self._optimizer.fp32_groups_gradients[group][index]
        return buffer.view(parameter.shape)

    def clear_gradients(self) -> None:
        """Forget them, as if no backward pass had run."""
        if self._is_bf16:
            self._optimizer.clear_hp_grads()
            self._optimizer.clear_lp_grads(set_to_none=True)
        else:
            self._optimizer.zero_grad(set_to_none=True)

    def link_moments(self) -> None:
        """Let DeepSpeed find Adam's moments.

        DeepSpeed 0.19 links parameters to their moments once, after the first parameter group's
        first step: those of later groups, and those of a loaded checkpoint, are never linked.
        """
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        optimizer = self._optimizer
        if self._is_bf16:
            groups = zip(optimizer.bf16_groups, optimizer.fp32_groups_flat_partition, strict=True)
        else:
            groups = zip(
                optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True
            )
        for parameters, partition in groups:
            lazy_init_hp_params_optimizer_state(parameters, partition, optimizer.optimizer.state)

    def second_moment(self, parameter: nn.Parameter) -> Tensor:
        """Adam's exp_avg_sq of the whole parameter of this process, in its shape.

        Collective over the processes that hold the same weights; `link_moments` comes first.
        """
        from deepspeed.utils import safe_get_full_optimizer_state

        found = safe_get_full_optimizer_state(parameter, "exp_avg_sq")
        assert found is not None, "Adam's moments exist after the first step"
        return found.view(parameter.shape)
