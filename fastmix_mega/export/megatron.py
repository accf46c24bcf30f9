"""Megatron-LM and Megatron-Bridge: a list of `weight prefix` pairs.

Weights are shares of samples. Megatron's samples all have the sequence's length, so that these
are shares of tokens too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from fastmix_mega.errors import UserError
from fastmix_mega.export.blend import Blend, Given
from fastmix_mega.export.plan import Part, Plan, number, refuse_spaces
from fastmix_mega.reading import parse_json


def _pairs(plan: Plan) -> list[str]:
    parts = plan.parts("{prefix}")
    refuse_spaces(parts, "Megatron")
    return [word for part in parts for word in (number(part.weight), part.path)]


def write_arguments(plan: Plan) -> str:
    """A file for `--data-args-path`; it is split at white space, so it holds nothing else."""
    words = _pairs(plan)
    return "".join(f"{words[at]} {words[at + 1]}\n" for at in range(0, len(words), 2))


def write_splits(plan: Plan) -> str:
    """A file for `--per-split-data-args-path`: all three splits must be there, null for none."""
    valid: list[str] | None = [word for path in plan.valid for word in ("1.0", path)] or None
    refuse_spaces([Part("--valid", path, 1.0) for path in plan.valid], "Megatron")
    return json.dumps({"train": _pairs(plan), "valid": valid, "test": None}, indent=2) + "\n"


def write_bridge(plan: Plan) -> str:
    """The `blend` of Megatron-Bridge's GPTDatasetConfig: ([paths], [weights])."""
    parts = plan.parts("{prefix}")
    refuse_spaces(parts, "Megatron")
    blend = [[part.path for part in parts], [part.weight for part in parts]]
    return json.dumps({"blend": blend}, indent=2) + "\n"


def read_arguments(text: str) -> list[Part]:
    return parts_of_words(text.split())


def read_splits(given: Given) -> list[Blend]:
    """The `train` list; what the other splits hold is named and not taken."""
    content = parse_json(given.text)
    if not isinstance(content, dict) or not isinstance(content.get("train"), list):
        raise UserError("a per-split file holds an object with a list `train`")
    others = [f"{split} ({content[split]})" for split in ("valid", "test") if content.get(split)]
    notes = (
        [f"not taken, since it is no part of the mixture: {', '.join(others)}"] if others else []
    )
    return [Blend(parts_of_words([str(word) for word in content["train"]]), notes=notes)]


def read_bridge(text: str) -> list[Part]:
    try:
        paths, weights = parse_json(text)["blend"]
        pairs = [(str(path), float(weight)) for path, weight in zip(paths, weights, strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"`blend` must be [[paths], [weights]]: {error}") from None
    return [Part("", path, weight) for path, weight in pairs]


def parts_of_words(words: Sequence[str]) -> list[Part]:
    """`weight prefix weight prefix ...`"""
    if not words or len(words) % 2:
        raise UserError(
            f"{len(words)} words are no pairs of weight and prefix; without weights Megatron takes "
            "the sources' sizes, which are no mixture"
        )
    found = []
    for weight, path in zip(words[::2], words[1::2], strict=True):
        try:
            found.append(Part("", path, float(weight)))
        except ValueError:
            raise UserError(f"{weight!r} stands where the weight of {path} should") from None
    return found
