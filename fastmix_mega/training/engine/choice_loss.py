"""Multiple choice as the likelihood of the right answer, from the losses of the choices' sequences.

A question with C choices is C sequences: the question, then one choice, whose tokens alone count.
With L_c the mean loss over choice c's tokens (so that long choices are not at a disadvantage), the
model chooses with p = softmax(-L), and the question's loss is

    -log p_right = L_right + log sum_c exp(-L_c),    d loss / d L_c = 1[c is right] - p_c.

Its gradient for any parameters is therefore a weighted sum of the sequences' own gradients: a
target's gradient needs nothing but these weights, whatever the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastmix_mega.arrays import FloatArray


@dataclass(frozen=True)
class ChoiceLoss:
    """Of Q questions with C choices each."""

    losses: FloatArray
    """[Q] -log p of the right choice, nats per question."""
    slopes: FloatArray
    """[Q, C] derivatives of each question's loss by its sequences' losses; rows sum to 0."""
    right: FloatArray
    """[Q] 1 where the right choice is the likeliest, 0 elsewhere; its mean is the accuracy."""


def choice_loss(sequence_losses: FloatArray) -> ChoiceLoss:
    """From [Q, C] mean losses of the choices' tokens; the first choice of each row is right."""
    logits = -sequence_losses
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    slopes = -np.exp(log_probabilities)
    slopes[:, 0] += 1.0
    # A tie is no answer.
    right = np.where((logits[:, :1] > logits[:, 1:]).all(axis=1), 1.0, 0.0)
    return ChoiceLoss(-log_probabilities[:, 0], slopes, right)


def weigh_choices(
    losses: FloatArray, sets: NDArray[np.int64], choices: Sequence[int]
) -> tuple[FloatArray, dict[int, ChoiceLoss]]:
    """What each sequence's mean loss must weigh, so that a set's weighted losses have the gradient
    of its questions' mean loss.

    Args:
        losses: [rows] mean loss of every sequence, a question's in a row.
        sets: [rows] the set of each; -1 for padding.
        choices: per set, sequences per question; 1 for a set without questions.

    Returns:
        [rows] weights, NaN where there is no question; and by set its questions' losses.
    """
    weights = np.full(len(losses), np.nan)
    found = {}
    for number, count in enumerate(choices):
        if count > 1:
            rows = np.flatnonzero(sets == number)
            found[number] = choice_loss(losses[rows].reshape(-1, count))
            weights[rows] = found[number].slopes.ravel() / len(found[number].losses)
    return weights, found
