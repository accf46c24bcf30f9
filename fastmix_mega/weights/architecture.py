"""Hugging Face's config.json and our `model` section: what of one the other can be.

Everything that the model would compute otherwise is refused, with the reason, rather than left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fastmix_mega.config.mistakes import explain_mistakes, shorten
from fastmix_mega.config.sections import ModelSection
from fastmix_mega.errors import UserError
from fastmix_mega.model.presets import ModelShape

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
SIZES = {
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "attention_heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "ffn_size": "intermediate_size",
    "vocab_size": "vocab_size",
}

SCALING = {
    "factor": "factor",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "original_length": "original_max_position_embeddings",
}


@dataclass(frozen=True)
class Architecture:
    """What a config.json says."""

    family: str
    model: ModelSection
    window: int | None
    """Tokens that attention looks back, where it is not all of them."""
    max_length: int | None
    """Tokens per sequence that it was made for."""


def read_architecture(content: Any) -> Architecture:
    """From the content of a config.json.

    Raises:
        UserError: naming what this model cannot be.
    """
    if not isinstance(content, dict) or "model_type" not in content:
        raise UserError("config.json names no model_type; is this a Hugging Face model?")
    family = content["model_type"]
    if family not in FAMILIES:
        raise UserError(
            f"config.json: model_type {shorten(repr(family))} is not supported; those that are: "
            f"{', '.join(FAMILIES)}"
        )
    _refuse(content, family)
    given: dict[str, Any] = {ours: content.get(theirs) for ours, theirs in SIZES.items()}
    if family == "llama" and given["key_value_heads"] is None:
        given["key_value_heads"] = given["attention_heads"]
    missing = [SIZES[ours] for ours, value in given.items() if value is None]
    if missing:
        raise UserError(f"config.json: {', '.join(missing)} missing")
    broken = [SIZES[ours] for ours, value in given.items() if type(value) is not int]
    if broken:
        raise UserError(f"config.json: {', '.join(broken)} must be whole numbers")
    optional = ("head_dim", "sliding_window", "max_window_layers", "max_position_embeddings")
    for key in optional:
        if type(content.get(key, 0)) not in (int, type(None)):
            raise UserError(f"config.json: {key} must be a whole number")
    head_size = content.get("head_dim") or (128 if family == "qwen3" else None)
    if head_size is not None and head_size * given["attention_heads"] != given["hidden_size"]:
        given["head_size"] = head_size
    given |= {
        "tie_embeddings": content.get("tie_word_embeddings", False),
        "qkv_bias": family == "qwen2",
        "qk_norm": family == "qwen3",
        "norm_epsilon": content.get("rms_norm_eps", 1e-6),
        **_positions(content),
    }
    try:
        model = ModelSection.model_validate(given)
    except ValidationError as error:
        raise UserError(explain_mistakes(error, "config.json", ModelSection)) from None
    length = content.get("max_position_embeddings")
    return Architecture(family, model, _window(content, family), length)


def _refuse(content: dict[str, Any], family: str) -> None:
    """Raises: UserError for what would change the model's function."""
    reasons = {
        "quantization_config": "its weights are quantised; take the unquantised ones",
        "attention_bias": f"biases in {family}'s attention reach its output too, which this model "
        "does not have",
        "mlp_bias": "biases in the feed-forward are not supported",
        "num_local_experts": "mixture-of-experts models are not supported",
    }
    for key, reason in reasons.items():
        if content.get(key):
            raise UserError(f"config.json: {key}: {reason}")
    activation = content.get("hidden_act", "silu")
    if activation != "silu":
        told = shorten(repr(activation))
        raise UserError(f"config.json: hidden_act {told} is not supported; silu is")
    if content.get("partial_rotary_factor", 1) != 1:
        raise UserError(
            "config.json: partial_rotary_factor: rotary positions turn whole heads here"
        )


def _positions(content: dict[str, Any]) -> dict[str, Any]:
    """Rotary base and scaling, from the older keys or from the newer `rope_parameters`."""
    given = content.get("rope_parameters") or content.get("rope_scaling") or {}
    if not isinstance(given, dict):
        raise UserError("config.json: the rotary scaling must be an object")
    base = given.get("rope_theta", content.get("rope_theta", 10000.0))
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default":
        return {"rotary_base": base}
    if kind != "llama3":
        told = shorten(repr(kind))
        raise UserError(f"config.json: rotary scaling of type {told} is not supported; llama3 is")
    scaling = {ours: given.get(theirs) for ours, theirs in SCALING.items()}
    return {"rotary_base": base, "rotary_scaling": scaling}


def _window(content: dict[str, Any], family: str) -> int | None:
    window: int | None = content.get("sliding_window", 4096 if family == "mistral" else None)
    if family in ("qwen2", "qwen3"):
        first = content.get("max_window_layers") or 28
        if not content.get("use_sliding_window", False) or first >= content["num_hidden_layers"]:
            return None
    return None if family == "llama" else window


def write_architecture(
    model: ModelSection, shape: ModelShape, max_length: int, dtype: str, ids: dict[str, int | None]
) -> dict[str, Any]:
    """The content of a config.json.

    Args:
        model: for positions and norms.
        shape: of the model.
        max_length: tokens per sequence.
        dtype: `float32` or `bfloat16`.
        ids: bos_token_id and eos_token_id.

    Raises:
        UserError: if no family has this model's combination of options.
    """
    if shape.qkv_bias and shape.qk_norm:
        raise UserError(
            "no Hugging Face family has both model.qkv_bias and model.qk_norm; this model cannot "
            "be exported to it"
        )
    family = "qwen2" if shape.qkv_bias else "qwen3" if shape.qk_norm else "llama"
    scaling = model.rotary_scaling
    return {
        "architectures": [CLASSES[family]],
        "model_type": family,
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden_size,
        "num_attention_heads": shape.attention_heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.head_size,
        "intermediate_size": shape.ffn_size,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tie_embeddings,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rotary_base,
        "rope_scaling": None
        if scaling is None
        else {"rope_type": "llama3"}
        | {theirs: getattr(scaling, ours) for ours, theirs in SCALING.items()},
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "max_position_embeddings": max_length,
        "torch_dtype": dtype,
        "use_cache": True,
        **ids,
    }
