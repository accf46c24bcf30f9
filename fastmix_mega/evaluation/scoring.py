"""Log-probabilities of given continuations, in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fastmix_mega.evaluation.model import AnsweringModel


@dataclass(frozen=True)
class Continuation:
    context: list[int]
    """At least one token."""
    tokens: list[int]
    """What is scored."""

    def cut(self, length: int) -> Continuation:
        """With as much of the context's end as `length` tokens of input leave room for."""
        room = max(1, length + 1 - len(self.tokens))
        return Continuation(self.context[-room:], self.tokens)


@dataclass(frozen=True)
class Score:
    log_probability: float
    """Of all of the continuation's tokens, natural logarithm."""
    is_greedy: bool
    """Whether each of them is the most likely one."""


def score(
    model: AnsweringModel, continuations: Sequence[Continuation], batch: int, length: int
) -> list[Score]:
    """Score every continuation after its context. Collective over a replica.

    Args:
        model: the same on every process.
        continuations: the same on every process of a replica.
        batch: texts at once.
        length: tokens of input; longer contexts lose their start.
    """
    cut = [each.cut(length) for each in continuations]
    # The longest first, so that too little memory shows at once and padding is small.
    order = sorted(range(len(cut)), key=lambda at: -len(cut[at].context) - len(cut[at].tokens))
    found: dict[int, Score] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        texts = [torch.tensor(cut[at].context + cut[at].tokens) for at in chosen]
        longest = max(len(text) for text in texts)
        # Attention never looks to the right, where the padding is.
        tokens = torch.stack([functional.pad(text, (0, longest - len(text))) for text in texts])
        logits = model.logits(tokens[:, :-1])
        for at, text, row in zip(chosen, texts, logits, strict=True):
            first = len(cut[at].context)
            found[at] = _score(row[first - 1 : len(text) - 1], text[first:].to(row.device))
    return [found[at] for at in range(len(cut))]


def _score(logits: Tensor, tokens: Tensor) -> Score:
    """Of one text: logits [n, V] for its n scored tokens."""
    chosen = logits.log_softmax(-1).gather(-1, tokens[:, None]).double().sum()
    return Score(float(chosen), bool((logits.argmax(-1) == tokens).all()))
