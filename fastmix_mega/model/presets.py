"""Model sizes by name. The name counts all parameters but the embeddings, about."""

from __future__ import annotations

from dataclasses import dataclass

from fastmix_mega.config.sections import ModelSection
from fastmix_mega.errors import UserError

VOCABULARY_MULTIPLE = 128
"""The embedding's rows are padded to a multiple of this under every layout, so that the layout
never changes the model."""


@dataclass(frozen=True)
class ModelShape:
    """Everything that decides the model's parameters; see `ModelSection` for the meanings."""

    layers: int
    hidden_size: int
    attention_heads: int
    key_value_heads: int
    ffn_size: int
    vocab_size: int
    tie_embeddings: bool
    own_head_size: int | None = None
    """None for hidden_size / attention_heads."""
    qkv_bias: bool = False
    qk_norm: bool = False

    @property
    def head_size(self) -> int:
        return self.own_head_size or self.hidden_size // self.attention_heads

    @property
    def query_size(self) -> int:
        """Width of all heads' queries; the hidden size unless heads have a size of their own."""
        return self.attention_heads * self.head_size

    @property
    def key_value_size(self) -> int:
        """Width of all heads' keys, and of their values."""
        return self.key_value_heads * self.head_size

    @property
    def split_layer_parameters(self) -> int:
        """Of one layer, what tensor parallelism cuts."""
        hidden, query, kv = self.hidden_size, self.query_size, self.key_value_size
        bias = (query + 2 * kv) if self.qkv_bias else 0
        attention = hidden * (query + 2 * kv) + query * hidden
        return attention + bias + 3 * hidden * self.ffn_size

    @property
    def whole_layer_parameters(self) -> int:
        """Of one layer, what every tensor-parallel process holds: the norms."""
        return 2 * self.hidden_size + (2 * self.head_size if self.qk_norm else 0)

    @property
    def body_parameters(self) -> int:
        """Parameters without the embedding and the head."""
        layer = self.split_layer_parameters + self.whole_layer_parameters
        return self.layers * layer + self.hidden_size

    @property
    def parameters(self) -> int:
        matrices = 1 if self.tie_embeddings else 2
        return self.body_parameters + matrices * self.vocab_size * self.hidden_size


# layers, hidden size, attention heads, key-value heads, width of the feed-forward network
PRESETS: dict[str, tuple[int, int, int, int, int]] = {
    "tiny": (2, 64, 4, 2, 128),
    "demo": (2, 128, 4, 2, 256),
    "1M": (4, 128, 4, 2, 384),
    "10M": (6, 384, 6, 2, 1024),
    "60M": (10, 704, 11, 11, 1920),
    "150M": (16, 896, 14, 7, 2432),
    "400M": (24, 1152, 18, 6, 3200),
    "1B": (24, 1920, 15, 5, 5120),
    "3B": (28, 3072, 24, 8, 8192),
    "7B": (32, 4096, 32, 32, 11008),
    "70B": (80, 8192, 64, 8, 28672),
}


def resolve_shape(section: ModelSection, tokenizer_vocab_size: int) -> ModelShape:
    """Combine preset, overrides and vocabulary.

    Raises:
        UserError: for an unknown preset, a missing size, or sizes that do not fit together.
    """
    sizes: dict[str, int | None] = dict.fromkeys(
        ("layers", "hidden_size", "attention_heads", "key_value_heads", "ffn_size")
    )
    if section.preset is not None:
        if section.preset not in PRESETS:
            raise UserError(
                f"model.preset: there is no {section.preset!r}; choose one of {', '.join(PRESETS)}"
            )
        sizes = dict(zip(sizes, PRESETS[section.preset], strict=True))
    given = {key: getattr(section, key) for key in sizes}
    sizes |= {key: value for key, value in given.items() if value is not None}
    missing = [key for key, value in sizes.items() if value is None]
    if missing:
        raise UserError(f"model: without a preset, give {', '.join(missing)} too")
    padded = -(-tokenizer_vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    vocab_size = section.vocab_size or padded
    shape = ModelShape(
        **{key: value for key, value in sizes.items() if value is not None},
        vocab_size=vocab_size,
        tie_embeddings=section.tie_embeddings,
        own_head_size=section.head_size,
        qkv_bias=section.qkv_bias,
        qk_norm=section.qk_norm,
    )
    if vocab_size < tokenizer_vocab_size:
        raise UserError(
            f"model.vocab_size is {vocab_size}, but the tokenizer has {tokenizer_vocab_size} "
            "tokens; raise it or leave it out"
        )
    if shape.own_head_size is not None:
        if shape.head_size % 2:
            raise UserError(
                f"model.head_size ({shape.head_size}) must be even: rotary positions turn pairs"
            )
    elif shape.hidden_size % shape.attention_heads or shape.head_size % 2:
        raise UserError(
            f"model.hidden_size ({shape.hidden_size}) must be an even multiple of "
            f"model.attention_heads ({shape.attention_heads}), or give model.head_size"
        )
    if shape.attention_heads % shape.key_value_heads:
        raise UserError(
            f"model.attention_heads ({shape.attention_heads}) must be a multiple of "
            f"model.key_value_heads ({shape.key_value_heads})"
        )
    return shape
