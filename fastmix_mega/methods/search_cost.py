"""What a search costs beyond the training it contains, in floating-point operations.

Multiply-adds in matrix products count as 2, a backward pass as twice its forward. Attention's
products are left out: they are the same share of training and of the target's forward.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastmix_mega.config.sections import TrainSection
from fastmix_mega.model.presets import ModelShape


@dataclass(frozen=True)
class ProxyOperations:
    """Operations of one proxy run. A sequence counts as its tokens' number does."""

    body: float
    """Of one token's forward pass through the layers."""
    head: float
    """Of one token's forward pass through the language-model head."""
    training: float
    """Of `fastmix train` with all of `train.steps`, per token of a sequence."""

    @classmethod
    def of(cls, train: TrainSection, shape: ModelShape) -> ProxyOperations:
        body, head = 2.0 * shape.body_parameters, 2.0 * shape.vocab_size * shape.hidden_size
        return cls(body, head, 3.0 * (body + head) * train.steps * train.global_batch)

    def forward_passes(self, sequences: float) -> float:
        """Of so many sequences, in proxy runs."""
        return sequences * (self.body + self.head) / self.training

    def backward_passes(self, sequences: float) -> float:
        """Forward and backward passes of so many sequences, in proxy runs."""
        return sequences * 3.0 * (self.body + self.head) / self.training

    def head_scores(self, target_sequences: float, scored_sequences: float) -> float:
        """Closed-form scores at the head, in proxy runs.

        Args:
            target_sequences: whose gradient at the head is taken in a forward pass.
            scored_sequences: training sequences that are compared with it; a share of a
                sequence's tokens counts as that share of a sequence.
        """
        extra = target_sequences * (self.body + 2 * self.head)
        # Each sequence's gradient is formed once more, for all targets together.
        return (extra + scored_sequences * self.head) / self.training
