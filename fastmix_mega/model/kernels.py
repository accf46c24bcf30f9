"""Which kernels compute the model: chosen once, from what a process can use, and named in the log.

The rest of the code asks a `Kernels` and never the device. Parameters have the same names and
shapes under every choice, so that a checkpoint goes on under another one. megatron-core is imported
where a layer is made: `fastmix check` only chooses.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from packaging.version import Version

from fastmix_mega.config.schema import Config
from fastmix_mega.model.engine_trial import try_transformer_engine

OLDEST_TRANSFORMER_ENGINE = Version("2.9")
"""What megatron-core 0.16 is released for."""


@dataclass(frozen=True)
class Capabilities:
    """What a process can use."""

    cuda: bool
    transformer_engine: Version | None
    """None where it is not installed, or cannot be imported."""
    compiler: bool
    """Whether torch.compile has what it needs: Triton on CUDA, a C++ compiler elsewhere."""
    engine_error: str = ""
    """Why a TransformerEngine that is installed cannot be imported."""

    @staticmethod
    def here() -> Capabilities:
        """Of this process; TransformerEngine is tried in another one, nothing is compiled."""
        import torch

        cuda = torch.cuda.is_available()
        compiler = find_spec("triton") is not None if cuda else shutil.which("g++") is not None
        trial = try_transformer_engine()
        engine = None if trial.version is None else Version(trial.version)
        return Capabilities(cuda, engine, compiler, trial.error)


@dataclass(frozen=True)
class Kernels:
    """The choice. Attention is torch's `scaled_dot_product_attention` (flash attention on CUDA)
    unless `engine_attention`; the head, its loss and the scores are the same under all."""

    engine_layers: bool
    """TransformerEngine's linear layers and norms in the transformer's layers."""
    engine_attention: bool
    """Its attention, a ring under context parallelism, and its rotary positions."""
    compiled: bool
    """torch.compile for megatron-core's regions: SwiGLU, and the sum with the residual."""

    def __str__(self) -> str:
        layers = "TransformerEngine" if self.engine_layers else "torch"
        attention = "TransformerEngine" if self.engine_attention else "torch SDPA"
        regions = "compiled" if self.compiled else "plain"
        return f"layers {layers}, attention {attention}, SwiGLU and residuals {regions}"

    def settings(self) -> dict[str, bool]:
        """Of megatron-core's TransformerConfig."""
        return {
            "bias_activation_fusion": self.compiled,
            "bias_dropout_fusion": self.compiled,
            "apply_rope_fusion": self.engine_attention,
            # DeepSpeed's hooks and ours need every weight's gradient from autograd.
            "gradient_accumulation_fusion": False,
            # Its gradient is bf16 whatever the precision, and the head's scores need the logits.
            "cross_entropy_loss_fusion": False,
            # Of an attention that is not used.
            "masked_softmax_fusion": False,
        }

    def layer(self, qk_norm: bool = False) -> Any:
        """megatron-core's ModuleSpec of one layer. Norms and linear layers stay apart, for the
        parameters' names.

        Args:
            qk_norm: whether it has norms of queries and keys.
        """
        from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

        from fastmix_mega.model.layers import CausalAttention

        layer = get_gpt_layer_local_spec(normalization="RMSNorm")
        attention, feed_forward = layer.submodules.self_attention, layer.submodules.mlp
        layer.submodules.input_layernorm = layer.submodules.pre_mlp_layernorm = self.norm()
        attention.submodules.core_attention = CausalAttention
        if qk_norm:
            attention.submodules.q_layernorm = attention.submodules.k_layernorm = self.norm()
        if self.engine_layers:
            provider = _engine()
            attention.submodules.linear_qkv = provider.column_parallel_linear()
            attention.submodules.linear_proj = provider.row_parallel_linear()
            feed_forward.submodules.linear_fc1 = provider.column_parallel_linear()
            feed_forward.submodules.linear_fc2 = provider.row_parallel_linear()
        if self.engine_attention:
            attention.submodules.core_attention = _engine().core_attention()
        return layer

    def norm(self) -> Any:
        from fastmix_mega.model.layers import RMSNorm

        return _engine().layer_norm() if self.engine_layers else RMSNorm


def _engine() -> Any:
    from megatron.core.extensions.transformer_engine_spec_provider import TESpecProvider

    return TESpecProvider()


def choose(
    config: Config,
    mode: str,
    machine: Capabilities | None = None,
    conversations: bool = False,
) -> Kernels:
    """The kernels of a run.

    Args:
        config: without `problems`.
        mode: `search` or `train`.
        machine: by default what this process can use.
        conversations: whether sequences hold several of them, for which only torch's attention has
            the mask.
    """
    machine = machine or Capabilities.here()
    wanted = config.kernels.layers
    engine = wanted == "transformer_engine"
    if wanted == "auto":
        # Its products of fp32 matrices are TF32's, with 10 bits of mantissa: not what fp32 means.
        exact = config.precision == "bf16"
        engine = exact and not list(_obstacles(config, mode, machine))
    compiled = config.kernels.compile == "on"
    if config.kernels.compile == "auto":
        # On CPU it would compile for a minute at every start, to save a few per cent.
        compiled = machine.cuda and machine.compiler
    # Its fast attention kernels know 16-bit numbers only.
    attention = engine and config.precision == "bf16" and not conversations
    return Kernels(engine, attention, compiled)


def problems(config: Config, mode: str, machine: Capabilities | None = None) -> list[str]:
    """Why what the configuration asks for cannot be had here; empty if it can."""
    machine = machine or Capabilities.here()
    found = []
    if config.kernels.layers == "transformer_engine":
        found = [
            f"kernels.layers: transformer_engine {reason}; say auto or torch"
            for reason in _obstacles(config, mode, machine)
        ]
    if config.kernels.compile == "on" and not machine.compiler:
        needed = "the package triton" if machine.cuda else "a C++ compiler (g++)"
        found.append(f"kernels.compile: on needs {needed}, which is not here; say auto or off")
    return found


def _obstacles(config: Config, mode: str, machine: Capabilities) -> Iterator[str]:
    """Why TransformerEngine cannot be used."""
    if not machine.cuda:
        yield "needs a CUDA device, and there is none here"
    if machine.engine_error:
        yield f"is installed, but cannot be imported ({machine.engine_error})"
    elif machine.transformer_engine is None:
        yield (
            "is not installed (pip install --no-build-isolation 'fastmix-mega[cuda]', after torch)"
        )
    elif machine.transformer_engine < OLDEST_TRANSFORMER_ENGINE:
        yield (
            f"has version {machine.transformer_engine}, megatron-core needs at least "
            f"{OLDEST_TRANSFORMER_ENGINE}"
        )
    if mode == "search" and config.search.scores not in (None, "head"):
        yield (
            f"cannot measure search.scores: {config.search.scores}, for which every micro-batch's "
            "weight gradients must come one by one from autograd"
        )
    if config.parallel.zero == 3:
        yield "keeps parameters at hand that ZeRO stage 3 takes away"
