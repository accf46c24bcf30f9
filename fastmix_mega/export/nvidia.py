"""NVIDIA's trainers beside Megatron: NeMo Automodel, Energon, Nemotron's data preparation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastmix_mega.errors import UserError
from fastmix_mega.export.blend import Blend, Given, Unit
from fastmix_mega.export.plan import Part, Plan, number, refuse_spaces
from fastmix_mega.export.text import a_number, entries, from_json, from_yaml, required, to_yaml
from fastmix_mega.export.units import decimal, epochs_of, kept_of, row_shares_of

RESERVED_DOMAIN = "weighted"
"""Automodel's own name for the mean of its domains."""


def write_automodel(plan: Plan) -> str:
    """`dataset.paths` and `domain_mixture`, which must name the same paths in the same order.

    Both weights are the mixture, so that every loss counts once. Automodel multiplies a domain's
    loss by objective / sampling: sampling may be changed by hand, and the objective stays.
    """
    parts = plan.parts("{prefix}")
    refuse_spaces(parts, "Automodel")
    names = _unique([part.source for part in parts])
    if len(parts) < 2:
        raise UserError("Automodel's domain_mixture needs two domains; give dataset.paths alone")
    if RESERVED_DOMAIN in names:
        raise UserError(
            f"Automodel keeps the domain name {RESERVED_DOMAIN!r} for itself; rename it"
        )
    domains = [
        {
            "name": name,
            "sampling_weight": part.weight,
            "objective_weight": part.weight,
            "path": part.path,
        }
        for name, part in zip(names, parts, strict=True)
    ]
    words = [word for part in parts for word in (number(part.weight), part.path)]
    return to_yaml(
        plan.notes, {"dataset": {"paths": words}, "domain_mixture": {"domains": domains}}
    )


def read_automodel(given: Given) -> list[Blend]:
    """The objective's weights: what the loss is a mean of, however the domains are sampled."""
    content = from_yaml(given.text)
    mixture = content.get("domain_mixture", content)
    if not isinstance(mixture, dict):
        raise UserError("`domain_mixture` must hold `domains`")
    parts, moved = [], []
    for domain in entries(mixture, "domains"):
        name, sampling, objective = required(domain, "name", "sampling_weight", "objective_weight")
        weight = a_number(objective, f"{name}: objective_weight")
        drawn = a_number(sampling, f"{name}: sampling_weight")
        if drawn <= 0:
            raise UserError(f"{name}: sampling_weight must be positive")
        parts.append(Part(str(name), str(domain.get("path") or ""), weight))
        moved.append(drawn)
    notes = []
    total, drawn = sum(part.weight for part in parts), sum(moved)
    if total > 0:
        factors = [
            (part.weight / total) / (sampling / drawn)
            for part, sampling in zip(parts, moved, strict=True)
        ]
        if max(factors) / max(min(factors), 1e-300) > 1 + 1e-6:
            notes.append(
                "taken: the objective's weights; the domains are sampled otherwise, and each loss "
                f"counts {min(factors):.3g} to {max(factors):.3g} times"
            )
    return [Blend(parts, notes=notes)]


def write_energon(plan: Plan) -> str:
    """MetadatasetV2's `blend`: it draws samples, here documents, so weights are shares of rows."""
    parts = plan.parts(None, counted=True)
    shares = row_shares_of(parts, "Energon's blend")
    blend = [
        {"weight": share, "path": part.path} for share, part in zip(shares, parts, strict=True)
    ]
    return to_yaml(plan.notes, _metadataset({"blend": blend}))


def write_energon_epochs(plan: Plan) -> str:
    """MetadatasetV2's `blend_epochized`: how often each data set is read in the run."""
    parts = plan.parts(None, counted=True)
    blend = [
        {"repetitions": float(decimal(times)), "path": part.path}
        for times, part in zip(_repetitions(plan, parts), parts, strict=True)
    ]
    return to_yaml(plan.notes, _metadataset({"blend_epochized": blend}))


def read_energon(given: Given) -> list[Blend]:
    """The `train` split, with the metadatasets that it names flattened as Energon flattens them."""
    leaves: list[tuple[Part, str]] = []
    units = _flatten(from_yaml(given.text), given.path, 1.0, leaves, depth=0)
    if units == {"rows", "epochs"}:
        raise UserError("`blend` and `blend_epochized` are mixed, which Energon refuses")
    parts = [part for part, _ in leaves]
    unit: Unit = "epochs" if units == {"epochs"} else "rows"
    return [Blend(parts, unit, leaves=[leaf for _, leaf in leaves])]


def write_nemotron(plan: Plan) -> str:
    """A blend for Nemotron's data preparation, whose weights reach Megatron's blend as they are."""
    datasets = [
        {"name": name, "path": part.path, "text_field": "text", "weight": part.weight}
        for name, part in _named(plan.parts(None))
    ]
    return json.dumps({"_comment": " ".join(plan.notes), "datasets": datasets}, indent=2) + "\n"


def read_nemotron(given: Given) -> list[Blend]:
    """`datasets`, or the `train` of a blend by split. What stands under other keys is named."""
    content = from_json(given.text)
    key = "datasets" if "datasets" in content else "train"
    listed = entries(content, key)
    parts, leaves, silent, notes = [], [], [], []
    for entry in listed:
        name, path = required(entry, "name", "path")
        if "weight" not in entry:
            silent.append(str(name))
        weight = a_number(entry.get("weight", 1.0), f"{name}: weight")
        parts.append(Part(str(name), str(path), weight))
        leaves.append("/".join(str(entry[k]) for k in ("subset", "split") if entry.get(k)))
    if silent:
        notes.append(f"without a weight, so 1.0: {', '.join(silent)}")
    missing = content.get("_missing_categories")
    if isinstance(missing, dict):
        absent = sum(
            a_number(each.get("weight", 0), "_missing_categories")
            for each in missing.values()
            if isinstance(each, dict)
        )
        notes.append(
            f"_missing_categories ({', '.join(missing)}) have weights of {absent:g} in all, and no "
            "data here: what is there gets their share"
        )
    for other in sorted(set(content) & {"valid", "test", "train", "datasets"} - {key}):
        notes.append(f"not taken: {other}")
    return [Blend(parts, notes=notes, leaves=leaves)]


def _metadataset(train: dict[str, Any]) -> dict[str, Any]:
    return {
        "__module__": "megatron.energon",
        "__class__": "MetadatasetV2",
        "splits": {"train": train},
    }


def _repetitions(plan: Plan, parts: list[Part]) -> list[float]:
    """Epochs at the budget; without one, of the largest mixture that repeats nothing."""
    if plan.budget_tokens is None:
        return kept_of(parts, "a trainer that counts epochs")
    return epochs_of(parts, plan.budget_tokens, "a trainer that counts epochs")


def _flatten(
    node: dict[str, Any], path: Path, factor: float, leaves: list[tuple[Part, str]], depth: int
) -> set[str]:
    """Append the leaves under a metadataset; returns the units that were met.

    Weights of a `blend` are normalised within it and multiplied downwards; repetitions are
    multiplied as they are (Energon's metadataset_v2).
    """
    if depth > 20:
        raise UserError(f"{path} names itself")
    splits = node.get("splits")
    train = splits.get("train") if isinstance(splits, dict) else None
    if not isinstance(train, dict):
        raise UserError(f"{path} has no split `train`")
    units: set[str] = set()
    for key, number_key, unit in (
        ("blend", "weight", "rows"),
        ("blend_epochized", "repetitions", "epochs"),
        ("datasets", "weight", "rows"),
    ):
        if key not in train:
            continue
        listed = entries(train, key)
        values = [a_number(each.get(number_key, 1.0), f"{key}: {number_key}") for each in listed]
        if any(value < 0 for value in values) or sum(values) <= 0:
            raise UserError(f"{key}: every {number_key} must be positive")
        whole = sum(values) if unit == "rows" else 1.0
        units.add(unit)
        for each, value in zip(listed, values, strict=True):
            units |= _leaf(each, path, factor * value / whole, leaves, depth)
        return units
    (leaf,) = required(train, "path")
    return _leaf(train | {"path": leaf}, path, factor, leaves, depth)


def _leaf(
    entry: dict[str, Any], within: Path, weight: float, leaves: list[tuple[Part, str]], depth: int
) -> set[str]:
    if "path" not in entry:
        raise UserError(f"{within}: a blend of joined data sets cannot be taken")
    given = str(entry["path"])
    where = given if "://" in given else str(within.parent / given)
    if given.endswith((".yaml", ".yml")) and Path(where).is_file():
        inner = from_yaml(Path(where).read_text(encoding="utf-8"))
        return _flatten(inner, Path(where), weight, leaves, depth + 1)
    details = [f"{key}={entry[key]}" for key in ("split_part", "subset") if entry.get(key)]
    leaves.append(
        (Part("", where if within.parent != Path() else given, weight), " ".join(details))
    )
    return set()


def _unique(names: list[str]) -> list[str]:
    """Sources of several files get a number behind their name."""
    return [
        name if names.count(name) == 1 else f"{name}_{names[:at].count(name)}"
        for at, name in enumerate(names)
    ]


def _named(parts: list[Part]) -> list[tuple[str, Part]]:
    return list(zip(_unique([part.source for part in parts]), parts, strict=True))
