"""The table that a run shows before its first step: the mixture that it begins with."""

from __future__ import annotations

from collections.abc import Sequence

from fastmix_mega.arrays import FloatArray
from fastmix_mega.quantities import in_epochs, with_unit

SHOWN = 20
"""Sources in the table; of more, those with the largest shares."""


def beginning(
    names: Sequence[str], tokens: Sequence[int], mixture: FloatArray, budget: int
) -> list[str]:
    """Lines of the table.

    Args:
        names: of the sources.
        tokens: of every source.
        mixture: [S] of the first step.
        budget: tokens that the run reads.
    """
    order = sorted(range(len(names)), key=lambda number: -mixture[number])
    shown = sorted(order[:SHOWN])
    wide = max(6, *(len(names[number]) for number in shown))
    lines = [
        f"the run begins with this mixture, and reads {with_unit(budget)} tokens:",
        f"{'source':<{wide}}   share  tokens  epochs if it stays",
    ]
    for number in shown:
        epochs = mixture[number] * budget / tokens[number]
        lines.append(
            f"{names[number]:<{wide}}  {mixture[number]:6.2%}  {with_unit(tokens[number]):>6}  "
            f"{in_epochs(epochs):>18}"
        )
    if len(order) > SHOWN:
        rest = sum(mixture[number] for number in order[SHOWN:])
        lines.append(f"and {len(order) - SHOWN} more sources with {rest:.2%} in all")
    return lines
