"""Continuations by the most likely token. Without a cache: every token reads the whole text again.

Right for checking and for short answers, too slow for long ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch.nn import functional

from fastmix_mega.evaluation.model import AnsweringModel


def greedy(
    model: AnsweringModel,
    prompts: Sequence[Sequence[int]],
    count: int,
    ends: Collection[int],
    done: Callable[[list[int]], bool] = lambda _tokens: False,
) -> list[list[int]]:
    """Continue every prompt. Collective over a replica.

    Texts of several lengths go together, padded on the right: attention never looks there.

    Args:
        model: to ask.
        prompts: at least one token each.
        count: new tokens at most.
        ends: tokens that end a text; they stay.
        done: whether the new tokens of a text are enough.
    """
    texts = [list(prompt) for prompt in prompts]
    running = list(range(len(texts)))
    for _ in range(count):
        if not running:
            break
        longest = max(len(texts[row]) for row in running)
        tokens = torch.stack(
            [
                functional.pad(torch.tensor(texts[row]), (0, longest - len(texts[row])))
                for row in running
            ]
        )
        logits = model.logits(tokens)
        for place, row in enumerate(running):
            texts[row].append(int(logits[place, len(texts[row]) - 1].argmax()))
        running = [
            row
            for row in running
            if texts[row][-1] not in ends and not done(texts[row][len(prompts[row]) :])
        ]
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]
