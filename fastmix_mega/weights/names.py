"""This model's parameters and Hugging Face's: names, shapes, and how one is made of the other.

Llama, Mistral, Qwen2 and Qwen3 share one scheme of names. Two of our matrices are several of
theirs: queries, keys and values stand together by groups of heads (each group's queries, then its
key, then its value: what tensor parallelism cuts), and SwiGLU's gate stands above its other half.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fastmix_mega.model.initialize import EMBEDDING_NAME, HEAD_NAME
from fastmix_mega.model.presets import ModelShape

NORM_NAME = "decoder.final_layernorm.weight"
WHOLE = {EMBEDDING_NAME: "model.embed_tokens.weight", NORM_NAME: "model.norm.weight"}
HEAD = "lm_head.weight"
LAYER = "decoder.layers."
IN_LAYER = {
    "input_layernorm.weight": ["input_layernorm.weight"],
    "self_attention.linear_qkv.weight": [f"self_attn.{each}_proj.weight" for each in "qkv"],
    "self_attention.linear_qkv.bias": [f"self_attn.{each}_proj.bias" for each in "qkv"],
    "self_attention.q_layernorm.weight": ["self_attn.q_norm.weight"],
    "self_attention.k_layernorm.weight": ["self_attn.k_norm.weight"],
    "self_attention.linear_proj.weight": ["self_attn.o_proj.weight"],
    "pre_mlp_layernorm.weight": ["post_attention_layernorm.weight"],
    "mlp.linear_fc1.weight": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
    "mlp.linear_fc2.weight": ["mlp.down_proj.weight"],
}
"""Within a layer: our name -> theirs, in the order in which they stand."""


def parameter_names(shape: ModelShape) -> Iterator[str]:
    """All of ours, in the order of the layers."""
    yield EMBEDDING_NAME
    for layer in range(shape.layers):
        for name in IN_LAYER:
            wanted = (
                "layernorm" not in name or shape.qk_norm or "self_attention" not in name
            ) and (not name.endswith("bias") or shape.qkv_bias)
            if wanted:
                yield f"{LAYER}{layer}.{name}"
    yield NORM_NAME
    if not shape.tie_embeddings:
        yield HEAD_NAME


def their_names(name: str) -> list[str]:
    """Hugging Face's names of what one of our parameters is made of."""
    if name == HEAD_NAME:
        return [HEAD]
    if name in WHOLE:
        return [WHOLE[name]]
    layer, _, rest = name.removeprefix(LAYER).partition(".")
    return [f"model.layers.{layer}.{each}" for each in IN_LAYER[rest]]


def their_shapes(name: str, shape: ModelShape) -> list[tuple[int, ...]]:
    """Of the tensors that `their_names` lists."""
    hidden, query, kv = shape.hidden_size, shape.query_size, shape.key_value_size
    if name in (EMBEDDING_NAME, HEAD_NAME):
        return [(shape.vocab_size, hidden)]
    if "linear_qkv" in name:
        return [(rows, hidden) if name.endswith("weight") else (rows,) for rows in (query, kv, kv)]
    if "linear_proj" in name:
        return [(hidden, query)]
    if "linear_fc1" in name:
        return [(shape.ffn_size, hidden)] * 2
    if "linear_fc2" in name:
        return [(hidden, shape.ffn_size)]
    return [(shape.head_size if "q_layernorm" in name or "k_layernorm" in name else hidden,)]


def join(name: str, parts: Sequence[Tensor], shape: ModelShape) -> Tensor:
    """Our parameter from theirs."""
    if len(parts) == 1:
        return parts[0]
    if "linear_qkv" not in name:
        return torch.cat(list(parts))
    groups, rest = shape.key_value_heads, parts[0].shape[1:]
    return torch.cat([part.view(groups, -1, *rest) for part in parts], 1).flatten(0, 1)


def split(name: str, whole: Tensor, shape: ModelShape) -> list[Tensor]:
    """Theirs from our parameter: the inverse of `join`."""
    if "linear_fc1" in name:
        return list(whole.chunk(2))
    if "linear_qkv" not in name:
        return [whole]
    size = shape.head_size
    per_group = shape.attention_heads // shape.key_value_heads * size
    grouped = whole.view(shape.key_value_heads, per_group + 2 * size, *whole.shape[1:])
    return [part.flatten(0, 1) for part in grouped.split([per_group, size, size], 1)]
