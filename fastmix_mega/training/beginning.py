"""What a run tells before its first step: where it runs, and the mixture that it begins with."""

from __future__ import annotations

from collections.abc import Sequence

from fastmix_mega.arrays import FloatArray
from fastmix_mega.data.conversations import ConversationSource
from fastmix_mega.parallel import devices
from fastmix_mega.quantities import in_epochs, with_unit
from fastmix_mega.training.run import Run

SHOWN = 20
"""Sources in the table; of more, those with the largest shares."""


def opening_lines(run: Run, kernels: object, mixture: FloatArray, start_step: int) -> list[str]:
    """Device, kernels, how conversations fit, and the mixture or the step to go on from.

    Args:
        run: of this process.
        kernels: as they were chosen.
        mixture: [S] of the next step.
        start_step: steps that are done.
    """
    lines = [devices.describe(run.layout.device.type), f"kernels: {kernels}"]
    for source in (*run.inputs.sources, *run.inputs.targets):
        if isinstance(source, ConversationSource):
            lines.append(f"{source.name}: {source.fit.describe()}")
    if start_step:
        return [*lines, f"continuing after step {start_step}"]
    tokens = [source.num_tokens for source in run.inputs.sources]
    names, budget = run.config.source_names, run.config.train.tokens
    return [*lines, *beginning(names, tokens, mixture, budget)]


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
