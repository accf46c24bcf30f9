"""Rules about how much of each source the run would read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from fastmix_mega.audit.case import INDEXED, Case, Finding
from fastmix_mega.export.pretraining import LEVANTER_BLOCK

BEARABLE_EPOCHS = 4
"""Beyond it, repeated text is known to teach less and less (Muennighoff et al., 2023)."""
USELESS_EPOCHS = 40
"""Beyond it, it teaches nothing more (the same)."""
FIXED_LENGTH: tuple[str, ...] = (
    *INDEXED,
    "levanter",
    "nemotron",
    "fast-llm",
    "nanotron",
    "torchtitan",
)
FIXED_LENGTH += ("torchtitan-main", "olmo-core", "olmo-core-composable", "weights", "csv")
"""Formats whose samples have the sequence's length (of a bare list of weights it is taken so)."""
NEEDS_POSITIVE: tuple[str, ...] = (
    *INDEXED,
    "energon",
    "olmo-core",
    "olmo-core-composable",
    "torchtitan-main",
)
NEEDS_POSITIVE += ("axolotl", "megatron-bridge-sft", "mosaicml-streaming")
"""Formats whose trainers stop at a weight of 0."""
FEW_ROWS = 10


def epochs(case: Case) -> Iterator[Finding]:
    """Sources that are read too often."""
    for leaf in case.leaves:
        if leaf.epochs is None or leaf.epochs <= BEARABLE_EPOCHS:
            continue
        share = "" if leaf.share is None else f": {leaf.share:.3%} of the run"
        held = f" against {leaf.part.tokens:,} tokens" if leaf.part.tokens else ""
        useless = leaf.epochs > USELESS_EPOCHS
        yield Finding(
            "wrong" if useless else "warning",
            "epochs",
            f"{leaf.name} would be read {leaf.epochs:,.4g} times{share}{held}",
            f"lower its weight, or get more text: beyond {BEARABLE_EPOCHS} readings text teaches "
            f"less, beyond {USELESS_EPOCHS} nothing",
        )


def sizes(case: Case) -> Iterator[Finding]:
    """Sources of which nobody knows how much there is."""
    without = [leaf.name for leaf in case.leaves if leaf.epochs is None]
    if without:
        yield Finding(
            "note",
            "sizes",
            f"epochs are unknown for {_listing(without)}: their tokens are not given",
            "give --sizes FILE with `name: tokens` lines",
        )


def rounded_to_nothing(case: Case) -> Iterator[Finding]:
    """Sources of which the trainer's own rounding leaves nothing, or a handful of rows."""
    if case.format == "levanter":
        data = case.content.get("data", case.content)
        block = data.get("mixture_block_size", LEVANTER_BLOCK)
        for leaf, share in zip(case.leaves, case.shares, strict=True):
            if leaf.part.weight > 0 and math.floor(share * block) == 0:
                yield Finding(
                    "wrong",
                    "rounding",
                    f"{leaf.name} has a share of {share:.3g}: none of a block's {block} sequences, "
                    "so that it is never read",
                    "raise mixture_block_size (below 65,536), or drop the source",
                )
    elif case.format == "open-instruct" and case.blend.unit == "rows":
        for leaf in case.leaves:
            if leaf.part.weight <= FEW_ROWS:
                amount = f"{leaf.part.weight:g}"
                yield Finding(
                    "wrong",
                    "rounding",
                    f"{leaf.name}: {amount} without a point is {amount} row(s), not passes",
                    f"write {float(leaf.part.weight)} for {amount} pass(es)",
                )
    elif case.format in FIXED_LENGTH:
        yield from _samples(case)
    elif case.blend.unit in ("kept", "epochs"):
        for leaf in case.leaves:
            if leaf.part.rows and leaf.part.weight > 0 and leaf.part.weight * leaf.part.rows < 1:
                yield Finding(
                    "wrong",
                    "rounding",
                    f"{leaf.name} keeps {leaf.part.weight:g} of {leaf.part.rows} rows, which is "
                    "none",
                    "raise its number, or drop the source",
                )


def zero_weights(case: Case) -> Iterator[Finding]:
    """A weight of 0 stops some trainers."""
    zero = [leaf.name for leaf in case.leaves if leaf.part.weight == 0]
    if zero and case.format in NEEDS_POSITIVE:
        yield Finding(
            "fails",
            "zero",
            f"{case.format} stops at a weight of 0: {_listing(zero)}",
            "leave it out",
        )


def shorter_than_a_sequence(case: Case) -> Iterator[Finding]:
    """A source must fill one sample."""
    for leaf in case.leaves:
        tokens = leaf.part.tokens
        if case.format not in FIXED_LENGTH or tokens is None or leaf.part.weight == 0:
            continue
        if tokens <= case.run.seq_length:
            yield Finding(
                "fails",
                "short",
                f"{leaf.name} has {tokens:,} tokens, fewer than one sequence of "
                f"{case.run.seq_length:,}",
                "merge it with another source, or leave it out",
            )


def ends_early(case: Case) -> Iterator[Finding]:
    """Trainers that stop with the first source that is read through."""
    if not any("ends with the first source" in note for note in case.blend.notes):
        return
    counted = [leaf for leaf in case.leaves if leaf.part.rows and leaf.share]
    if len(counted) < len(case.leaves):
        yield Finding(
            "warning",
            "ends early",
            "the run ends with the first source that is read through, whatever the budget",
            "take interleave_over or all_exhausted; --sizes would tell where it ends",
        )
        return
    # The tokens that were read when the scarcest source ends.
    end = min((leaf.part.tokens or 0) / (leaf.share or 1.0) for leaf in counted)
    if end < case.run.budget:
        yield Finding(
            "wrong",
            "ends early",
            f"the run ends after {end:,.0f} of {case.run.budget:,} tokens, when the first source "
            "is read through",
            "take interleave_over or all_exhausted",
        )


def against_the_intended(case: Case) -> Iterator[Finding]:
    """Shares of tokens that the blend gives, against those that were meant."""
    meant = case.run.intended
    if meant is None:
        if case.blend.unit == "rows" and all(leaf.share is not None for leaf in case.leaves):
            moved = sum(
                abs((leaf.share or 0.0) - share)
                for leaf, share in zip(case.leaves, case.shares, strict=True)
            )
            if moved / 2 > 0.1:
                yield Finding(
                    "note",
                    "units",
                    f"its numbers are shares of rows; in tokens {moved / 2:.0%} of the run lies "
                    "elsewhere (see the table)",
                    "give --intended MIXTURE to have it compared with what was meant",
                )
        return
    given: dict[str, float] = {}
    for leaf in case.leaves:
        # A source of several files is one.
        name = leaf.part.source or leaf.name
        given[name] = given.get(name, 0.0) + (leaf.share or 0.0)
    moved = sum(abs(given.get(n, 0) - meant.get(n, 0)) for n in set(given) | set(meant)) / 2
    if moved > 0.02:
        worst = max(set(given) | set(meant), key=lambda n: abs(given.get(n, 0) - meant.get(n, 0)))
        yield Finding(
            "wrong",
            "units",
            f"{moved:.1%} of the tokens go elsewhere than meant; most of all {worst}: "
            f"{given.get(worst, 0):.1%} instead of {meant.get(worst, 0):.1%}",
            "its numbers count rows, epochs or tokens otherwise than the mixture: let fastmix "
            "export write the file",
        )


def published_metadata(case: Case) -> Iterator[Finding]:
    """Numbers that stand in a file and do not reach the trainer, or the other way round."""
    content: Any = case.content
    if case.format == "axolotl" and any(leaf_weight(e) for e in content["datasets"]):
        yield Finding(
            "wrong",
            "metadata",
            "`weight` reaches no training in Axolotl to 0.19.0, which drops the key without a word",
            "use a version that has it, or slices: fastmix export --to axolotl",
        )
    if case.format != "nemotron":
        return
    entries = content.get("datasets") or content.get("train")
    silent = [str(each.get("name")) for each in entries if "weight" not in each]
    weights = [float(each.get("weight", 1.0)) for each in entries]
    if silent and len(silent) < len(entries) and set(weights) != {1.0}:
        yield Finding(
            "wrong",
            "metadata",
            f"without a weight, so 1.0 among {min(weights):g} to {max(weights):g}: "
            f"{_listing(silent)}",
            "give every data set its weight",
        )
    if len(entries) > 1 and set(weights) == {1.0}:
        yield Finding(
            "warning",
            "metadata",
            "all weights are 1, the default: equal shares for data sets of unequal size",
            "give weights, or shares by size",
        )
    elif not any(each.get("text_field") for each in entries):
        yield Finding(
            "wrong",
            "metadata",
            "the data sets name no text_field, as those for fine-tuning do, and fine-tuning "
            "recipes pass `weight` on as metadata: every row is read alike",
            "for fine-tuning, subsample the data sets (fastmix export --to trl shows the rows)",
        )
    missing = content.get("_missing_categories")
    if isinstance(missing, dict):
        absent = sum(float(each.get("weight", 0)) for each in missing.values())
        part = absent / (absent + sum(weights))
        yield Finding(
            "wrong" if part > 0.05 else "warning",
            "metadata",
            f"{part:.1%} of the published mixture has no data here ({_listing(list(missing))}); "
            "all others get that share",
            "add data for it, or decide where its share goes",
        )


def leaf_weight(entry: dict[str, Any]) -> bool:
    """Whether an entry has a weight that would leave rows out."""
    weight = entry.get("weight")
    return weight is not None and float(weight) != 1.0


def _samples(case: Case) -> Iterator[Finding]:
    count = case.run.budget / case.run.seq_length
    for leaf in case.leaves:
        if leaf.share is None or leaf.part.weight == 0 or leaf.share * count >= 1:
            continue
        yield Finding(
            "wrong",
            "rounding",
            f"{leaf.name} would have {leaf.share * count:.2g} samples of {case.run.seq_length:,} "
            "tokens in the whole run, which is rounded to none or one (and stops older versions of "
            "Megatron with an IndexError)",
            "leave it out, or merge it with another source",
        )


def _listing(names: list[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


RULES = (
    epochs,
    rounded_to_nothing,
    zero_weights,
    shorter_than_a_sequence,
    ends_early,
    against_the_intended,
    published_metadata,
    sizes,
)
