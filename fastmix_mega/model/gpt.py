"""megatron-core's GPTModel from our configuration, with a window on its head."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from deepspeed.checkpoint.constants import (
    ORIGINAL_VOCAB_SIZE,
    PARAMETER_WITH_2_SUB_PARAMS_CAT_DIM_0,
    PARAMETER_WITH_ROW_PARALLELISM_PATTERNS,
    TP_REPLICATED_PARAMETER_PATTERNS,
    UNIVERSAL_CHECKPOINT_VERSION_KEY,
    UNIVERSAL_CHECKPOINT_VERSION_VALUE,
    VOCABULARY_PARAMETER_PATTERNS,
)
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn
from torch.nn import functional

from fastmix_mega.config.schema import Config
from fastmix_mega.config.sections import RotaryScalingSection
from fastmix_mega.model.initialize import Weights, initialize_weights, load_weights
from fastmix_mega.model.kernels import Kernels
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
    def head_weight(self) -> nn.Parameter:
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
                hidden = self._head_input
                if self.config.sequence_parallel:
                    hidden = gather_from_sequence_parallel_region(hidden)  # [s / tensor, b, d] -> s
                self.observer(hidden, logits.detach(), labels)
            self._head_input = None
        return super().compute_language_model_loss(labels, logits)


class StageLayers(nn.ModuleList):
    """A pipeline stage's layers under their numbers in the whole model.

    megatron-core counts from 0 on every stage; here a parameter has one name under every layout,
    so that weights are drawn, and checkpoints are read, by name.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self._first = int(layers[0].layer_number) - 1  # type: ignore[arg-type]
        for position, layer in enumerate(layers):
            self.add_module(str(self._first + position), layer)

    def _get_abs_string_index(self, idx: int) -> str:
        return str(int(super()._get_abs_string_index(idx)) + self._first)


def chunks_of(model: nn.Module) -> list[ProxyModel]:
    """The parts of the model that this process holds: several under the interleaved schedule."""
    return [chunk for chunk in model.modules() if isinstance(chunk, ProxyModel)]


def named_parts(model: nn.Module) -> dict[str, nn.Parameter]:
    """This process's parameters by their names in the whole model."""
    chunks = chunks_of(model)
    return {name: value for chunk in chunks for name, value in chunk.named_parameters()}


def head_of(model: nn.Module) -> ProxyModel | None:
    """The part with the language-model head, if this process holds it."""
    return next((chunk for chunk in chunks_of(model) if chunk.post_process), None)


def build_model(
    config: Config,
    shape: ModelShape,
    layout: Layout,
    kernels: Kernels,
    weights: Weights | None = None,
) -> nn.Module:
    """This process's part of the model, on its device, with weights that no layout changes.

    Args:
        config: the run.
        shape: of the model.
        layout: this process's place.
        kernels: that compute it.
        weights: to start from; None draws them from the seed.

    Returns:
        A ProxyModel, or a list of them under the interleaved pipeline schedule.
    """
    transformer = _transformer_config(config, shape, kernels)
    interleave = config.parallel.interleave
    numbers = range(interleave) if interleave > 1 else [None]
    chunks = [_build_chunk(config, shape, transformer, kernels, number) for number in numbers]
    model: nn.Module = chunks[0] if interleave == 1 else nn.ModuleList(chunks)
    model.to(layout.device)
    _describe_for_universal_checkpoints(model, shape)
    std = config.model.init_std or math.sqrt(2 / (5 * shape.hidden_size))
    for chunk in chunks:
        initialize_weights(chunk, shape, std, config.seed, layout)
        if weights is not None:
            load_weights(chunk, shape, weights, layout)
        _complete_norm_gradients(chunk, layout)
    return model


def _transformer_config(config: Config, shape: ModelShape, kernels: Kernels) -> TransformerConfig:
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    parallel, recompute = config.parallel, config.train.recompute
    return TransformerConfig(
        num_layers=shape.layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.attention_heads,
        num_query_groups=shape.key_value_heads,
        ffn_hidden_size=shape.ffn_size,
        kv_channels=shape.head_size,
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=(
            parallel.interleave if parallel.interleave > 1 else None
        ),
        context_parallel_size=parallel.context,
        sequence_parallel=parallel.sequence,
        normalization="RMSNorm",
        layernorm_epsilon=config.model.norm_epsilon,
        gated_linear_unit=True,
        activation_func=functional.silu,
        add_bias_linear=False,
        add_qkv_bias=shape.qkv_bias,
        qk_layernorm=shape.qk_norm,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        # It would wait for the GPU after every message between stages, for torch before 2.0.
        batch_p2p_sync=False,
        bf16=config.precision == "bf16",
        recompute_granularity=None if recompute == "none" else recompute,
        recompute_method="uniform" if recompute == "full" else None,
        recompute_num_layers=1 if recompute == "full" else None,
        # The schedules then leave the loss as it is: it is normalised over the global batch here.
        calculate_per_token_loss=True,
        # `initialize_weights` sets every weight; megatron's own draw would be thrown away.
        use_cpu_initialization=True,
        perform_initialization=False,
        **kernels.settings(),
    )


def _build_chunk(
    config: Config,
    shape: ModelShape,
    transformer: TransformerConfig,
    kernels: Kernels,
    number: int | None,
) -> ProxyModel:
    """`number` counts the chunks of an interleaved stage; None for a stage in one piece."""
    place: dict[str, Any] = {"ignore_virtual": False, "vp_stage": number}
    chunk = ProxyModel(
        config=transformer,
        transformer_layer_spec=_layers(transformer, kernels, number),
        vocab_size=shape.vocab_size,
        max_sequence_length=config.train.seq_length,
        pre_process=parallel_state.is_pipeline_first_stage(**place),
        post_process=parallel_state.is_pipeline_last_stage(**place),
        parallel_output=True,
        share_embeddings_and_output_weights=shape.tie_embeddings,
        position_embedding_type="rope",
        rotary_base=config.model.rotary_base,
        vp_stage=number,
    )
    chunk.decoder.layers = StageLayers(chunk.decoder.layers)
    if config.model.rotary_scaling is not None:
        rotary = chunk.rotary_pos_emb
        rotary.inv_freq = scale_frequencies(rotary.inv_freq, config.model.rotary_scaling)
    return chunk


def scale_frequencies(frequencies: Tensor, scaling: RotaryScalingSection) -> Tensor:
    """Llama 3's: low frequencies divided by the factor, high ones kept, a ramp between.

    megatron-core has the same with fixed constants; smaller models are stretched by others.

    Args:
        frequencies: [head size / 2] radians a token.
        scaling: the configuration's.
    """
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    turns = scaling.original_length * frequencies / (2 * math.pi)  # within the first training
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * frequencies + (1 - kept) * frequencies / scaling.factor


def _layers(
    transformer: TransformerConfig, kernels: Kernels, number: int | None
) -> TransformerBlockSubmodules:
    count = get_num_layers_to_build(transformer, vp_stage=number)
    return TransformerBlockSubmodules(
        layer_specs=[kernels.layer(transformer.qk_layernorm)] * count, layer_norm=kernels.norm()
    )


def _complete_norm_gradients(model: nn.Module, layout: Layout) -> None:
    """Sum gradients of norms that see a part only over their tensor-parallel group, at once.

    Under sequence parallelism each process sees a part of the sequence; norms of queries and keys
    always see the process's own heads alone. Megatron's own optimizer does this; DeepSpeed's does
    not, and scores want the whole gradient of every micro-batch too.
    """
    if layout.tensor.size == 1:
        return
    for name, parameter in model.named_parameters():
        of_heads = name.endswith(("q_layernorm.weight", "k_layernorm.weight"))
        if of_heads or getattr(parameter, "sequence_parallel", False):
            parameter.register_hook(lambda gradient: layout.tensor.sum(gradient.clone()))


def _describe_for_universal_checkpoints(model: nn.Module, shape: ModelShape) -> None:
    """Tell DeepSpeed's converter how tensor parallelism has cut each parameter."""
    model.universal_checkpoint_info = {  # type: ignore[assignment]
        UNIVERSAL_CHECKPOINT_VERSION_KEY: UNIVERSAL_CHECKPOINT_VERSION_VALUE,
        VOCABULARY_PARAMETER_PATTERNS: [r".*word_embeddings\.weight", r".*output_layer\.weight"],
        ORIGINAL_VOCAB_SIZE: shape.vocab_size,
        PARAMETER_WITH_ROW_PARALLELISM_PATTERNS: [
            r".*linear_proj\.weight",
            r".*linear_fc2\.weight",
        ],
        TP_REPLICATED_PARAMETER_PATTERNS: [r".*norm.*"],
        PARAMETER_WITH_2_SUB_PARAMS_CAT_DIM_0: [r".*linear_fc1\.weight"],
    }

    def drop_extra(_module: Any, state: dict[str, Any], *_: Any) -> None:
        # TransformerEngine's state of 8-bit numbers and megatron-core's place-holders for it; the
        # converter wants tensors.
        for key in [key for key in state if key.endswith("_extra_state")]:
            del state[key]

    def expect_none(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        if type(module).set_extra_state is not nn.Module.set_extra_state:
            state.setdefault(f"{prefix}_extra_state", None)

    model.register_state_dict_post_hook(drop_extra)
    for module in model.modules():
        module.register_load_state_dict_pre_hook(expect_none)
