"""The repetition of a large run in a small one: every source cut in the ratio of the budgets.

A proxy that reads P of the L tokens of the large run sees a scarce source fresh where the large run
repeats it, and gives it too much. With P / L of every source's samples both repeat alike.
(2606.07597). The subsets are exact, and the same for every seed and layout. `fastmix train` and
regmix's runs read sources whole. Off by default, since it has not been measured here whether it
helps (research/match_repetition.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fastmix_mega.config.schema import Config
from fastmix_mega.data.order import subset_size

FEW_SAMPLES = 32
"""Fewer sequences of a source are learned by heart within a proxy run, whatever they say."""


def proxy_share(config: Config, verb: Literal["search", "train"]) -> float:
    """Of every source's samples that a run reads: below 1 in a search that matches repetition."""
    if verb != "search" or not config.search.match_repetition:
        return 1.0
    limits = config.search.constraints
    # The schema asks for it.
    assert limits is not None
    assert limits.budget_tokens is not None
    return min(1.0, config.train.tokens / limits.budget_tokens)


def repetition_notes(config: Config, samples: Sequence[int]) -> tuple[list[str], list[str]]:
    """What `fastmix check` says of it: facts, and warnings.

    Args:
        config: of a search.
        samples: [S] sequences of each whole source.
    """
    share = proxy_share(config, "search")
    if not config.search.match_repetition:
        return [], []
    if share == 1.0:
        return [], ["search.match_repetition changes nothing: the budget is the search's own"]
    few = [
        f"{name} ({subset_size(count, share)})"
        for name, count in zip(config.source_names, samples, strict=True)
        if subset_size(count, share) < FEW_SAMPLES
    ]
    facts = [f"every source is cut to {share:.3%}, as the large run would repeat it"]
    warnings = []
    if few:
        warnings.append(
            f"search.match_repetition leaves fewer than {FEW_SAMPLES} sequences of "
            f"{', '.join(few)}: search with more tokens, or merge them"
        )
    return facts, warnings
