"""The proxy's mathematics once more with torch.nn.functional: the loop that ours is measured by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fastmix_mega.model.presets import ModelShape


@dataclass
class PlainModel:
    """A Llama-like decoder over a dictionary of parameters under megatron-core's names."""

    shape: ModelShape
    parameters: dict[str, Tensor]
    epsilon: float = 1e-5
    rotary_base: float = 10000.0

    def losses(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """[b] mean cross-entropy of each sequence; inputs and labels are [b, s]."""
        hidden = self.hidden(inputs)
        logits = functional.linear(hidden, self.parameters["output_layer.weight"])  # [b, s, V]
        per_token = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="none"
        )
        return per_token.view(labels.shape).mean(1)

    def hidden(self, inputs: Tensor) -> Tensor:
        """[b, s, d] the head's input."""
        shape, named = self.shape, self.parameters
        hidden = functional.embedding(inputs, named["embedding.word_embeddings.weight"])  # [b,s,d]
        rotary = self._rotary(inputs.size(1))
        for layer in range(shape.layers):
            hidden = hidden + self._attention(f"decoder.layers.{layer}.", hidden, rotary)
            hidden = hidden + self._feed_forward(f"decoder.layers.{layer}.", hidden)
        return self._norm("decoder.final_layernorm.weight", hidden)

    def _norm(self, name: str, hidden: Tensor) -> Tensor:
        weight = self.parameters[name]
        return functional.rms_norm(hidden, weight.shape, weight, self.epsilon)

    def _rotary(self, length: int) -> tuple[Tensor, Tensor]:
        size = self.shape.head_size
        frequencies = self.rotary_base ** (-torch.arange(0, size, 2).float() / size)
        angles = torch.arange(length).float()[:, None] * frequencies  # [s, size / 2]
        angles = torch.cat((angles, angles), -1)
        return angles.cos(), angles.sin()

    def _attention(self, prefix: str, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        shape = self.shape
        batch, length, _ = hidden.shape
        groups, size = shape.key_value_heads, shape.head_size
        per_group = shape.attention_heads // groups
        hidden = self._norm(f"{prefix}input_layernorm.weight", hidden)
        mixed = functional.linear(
            hidden, self.parameters[f"{prefix}self_attention.linear_qkv.weight"]
        ).view(batch, length, groups, (per_group + 2) * size)
        query, key, value = mixed.split((per_group * size, size, size), -1)
        query = query.reshape(batch, length, -1, size)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))  # [b, h, s, d]
        context = functional.scaled_dot_product_attention(
            _rotated(query, rotary),
            _rotated(key, rotary),
            value,
            is_causal=True,
            enable_gqa=per_group > 1,
        )
        context = context.transpose(1, 2).flatten(2)
        return functional.linear(
            context, self.parameters[f"{prefix}self_attention.linear_proj.weight"]
        )

    def _feed_forward(self, prefix: str, hidden: Tensor) -> Tensor:
        hidden = self._norm(f"{prefix}pre_mlp_layernorm.weight", hidden)
        both = functional.linear(hidden, self.parameters[f"{prefix}mlp.linear_fc1.weight"])
        gate, up = both.chunk(2, -1)
        return functional.linear(
            functional.silu(gate) * up, self.parameters[f"{prefix}mlp.linear_fc2.weight"]
        )


def _rotated(heads: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotary
    first, second = heads.chunk(2, -1)
    return heads * cosine + torch.cat((-second, first), -1) * sine


class PlainTraining:
    """Forward, backward, clipping and AdamW, and nothing else."""

    def __init__(self, parameters: list[Tensor], rate: float, fused: bool) -> None:
        self.parameters = parameters
        matrices = [each for each in parameters if each.dim() > 1]
        norms = [each for each in parameters if each.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}],
            lr=rate,
            betas=(0.9, 0.95),
            fused=fused,
        )

    def step(self, losses: list[Tensor]) -> None:
        """One optimizer step on micro-batches' losses, each already divided by their number."""
        for loss in losses:
            loss.backward()
        self.update()

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
