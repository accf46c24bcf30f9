"""Loaders that draw rows of a Hugging Face dataset: `datasets` itself, and torchtitan."""

from __future__ import annotations

import json
from typing import Any

from fastmix_mega.errors import UserError
from fastmix_mega.export.plan import Part, Plan
from fastmix_mega.export.units import row_shares_of
from fastmix_mega.reading import parse_json


def write_interleave(plan: Plan) -> str:
    """Arguments of `datasets.interleave_datasets`.

    It draws rows. `probabilities` are right for rows of one length (packed sequences). For rows
    that are whole documents, a source of long documents would get too many tokens:
    `document_probabilities` corrects for its mean length.
    """
    parts = plan.parts(None)
    content: dict[str, Any] = {
        "notes": plan.notes,
        "datasets": [part.path for part in parts],
        "probabilities": [part.weight for part in parts],
        "document_probabilities": _by_document(plan),
        "seed": 1,
        "stopping_strategy": "all_exhausted",
    }
    return json.dumps(content, indent=2) + "\n"


def write_torchtitan(plan: Plan) -> str:
    """Arguments of torchtitan's `HFDataSource`, one per source; it packs every source by itself,
    so that its weights are shares of tokens."""
    sources = [
        {"dataset": part.source, "dataset_path": part.path, "weight": part.weight}
        for part in plan.parts(None)
    ]
    return json.dumps({"notes": plan.notes, "sources": sources}, indent=2) + "\n"


def read_interleave(text: str) -> list[Part]:
    content = parse_json(text)
    try:
        pairs = zip(content["datasets"], content["probabilities"], strict=True)
        return [Part("", str(path), float(share)) for path, share in pairs]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"`datasets` and `probabilities` must be lists of one length: {error}"
        ) from None


def read_torchtitan(text: str) -> list[Part]:
    try:
        return [
            Part(str(each["dataset"]), str(each["dataset_path"]), float(each["weight"]))
            for each in json.loads(text)["sources"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"`sources` must be objects with dataset, dataset_path, weight: {error}"
        ) from None


def _by_document(plan: Plan) -> list[float] | None:
    """Probabilities of whole documents; None where the token files are not to be had."""
    try:
        return row_shares_of(plan.parts(None, counted=True), "datasets")
    except UserError:
        return None
