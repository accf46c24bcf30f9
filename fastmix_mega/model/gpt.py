"""megatron-core's GPTModel from our configuration, with a window on its head."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn import functional

from fastmix_mega.config import Config
from fastmix_mega.model.initialize import initialize_weights
from fastmix_mega.model.layers import CausalAttention, RMSNorm
from fastmix_mega.model.presets import ModelShape
from fastmix_mega.parallel.layout import Layout

HeadObserver = Callable[[Tensor, Tensor, Tensor], None]
"""Called in the forward pass with (hidden [s, b, d], logits [s, b, V / tensor], labels [b, s]).

All are detached views of what the loss is computed from; the observer must not change them.
"""


class ProxyModel(GPTModel):
    """GPTModel that shows an observer the head's input, its logits and the labels.

    megatron-core computes the loss in place over the logits, so that the observer is called
    before the loss; it reads, and the training step stays bit for bit the same.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.observer: HeadObserver | None = None
        self._head_input: Tensor | None = None
        if self.post_process:
            self.output_layer.register_forward_pre_hook(self._keep_head_input)

    @property
    def head_weight(self) -> torch.nn.Parameter:
        """[V / tensor, d]; the embedding itself where it is tied."""
        if self.share_embeddings_and_output_weights:
            return self.shared_embedding_or_output_weight()
        return self.output_layer.weight

    def _keep_head_input(self, _module: Any, inputs: tuple[Tensor, ...]) -> None:
        if self.observer is not None:
            self._head_input = inputs[0].detach()

    def compute_language_model_loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Per-token cross-entropy [b, s]; see GPTModel."""
        if self.observer is not None:
            assert self._head_input is not None
            with torch.no_grad():
                self.observer(self._head_input, logits.detach(), labels)
            self._head_input = None
        return super().compute_language_model_loss(labels, logits)


def build_model(config: Config, shape: ModelShape, layout: Layout) -> ProxyModel:
    """The model of this process, on its device, with weights that no layout changes."""
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    transformer = TransformerConfig(
        num_layers=shape.layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.attention_heads,
        num_query_groups=shape.key_value_heads,
        ffn_hidden_size=shape.ffn_size,
        kv_channels=shape.head_size,
        tensor_model_parallel_size=config.parallel.tensor,
        pipeline_model_parallel_size=config.parallel.pipeline,
        context_parallel_size=config.parallel.context,
        sequence_parallel=config.parallel.sequence,
        normalization="RMSNorm",
        layernorm_epsilon=config.model.norm_epsilon,
        gated_linear_unit=True,
        activation_func=functional.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=config.precision == "bf16",
        # `initialize_weights` sets every weight; megatron's own draw would be thrown away.
        use_cpu_initialization=True,
        perform_initialization=False,
        # Fusions are CUDA kernels or compiled at start-up; hooks need unfused weight gradients.
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
        apply_rope_fusion=False,
    )
    model = ProxyModel(
        config=transformer,
        transformer_layer_spec=_layers(transformer),
        vocab_size=shape.vocab_size,
        max_sequence_length=config.train.seq_length,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        parallel_output=True,
        share_embeddings_and_output_weights=shape.tie_embeddings,
        position_embedding_type="rope",
        rotary_base=config.model.rotary_base,
    )
    model.to(layout.device)
    std = config.model.init_std or math.sqrt(2 / (5 * shape.hidden_size))
    initialize_weights(model, shape, std, config.seed, layout)
    return model


def _layers(transformer: TransformerConfig) -> TransformerBlockSubmodules:
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.input_layernorm = RMSNorm
    layer.submodules.pre_mlp_layernorm = RMSNorm
    layer.submodules.self_attention.submodules.core_attention = CausalAttention
    count = get_num_layers_to_build(transformer)
    return TransformerBlockSubmodules(layer_specs=[layer] * count, layer_norm=RMSNorm)
