"""Our own mixture.json, a table for people, and mixtures as they are published."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from fastmix_mega.config.parse import read_yaml
from fastmix_mega.errors import UserError
from fastmix_mega.export.blend import Blend, Given
from fastmix_mega.export.plan import Part, Plan
from fastmix_mega.export.text import a_number, from_yaml, to_yaml
from fastmix_mega.mixture.constraints.apply import epochs_at

COLUMNS = ("source", "token_share", "standard_error", "tokens", "epochs_at_budget", "prefix")


def write_fastmix(plan: Plan) -> str:
    """For `fastmix train mixture=FILE`; sources of weight 0 stay, since names must match."""
    return json.dumps(plan.mixture.content(), indent=2, ensure_ascii=False) + "\n"


def write_csv(plan: Plan) -> str:
    sources = plan.mixture.sources
    epochs = epochs_at(
        [source.weight for source in sources],
        [source.tokens for source in sources],
        plan.budget_tokens,
    )
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for source, times in zip(sources, epochs, strict=True):
        prefix = source.prefix if isinstance(source.prefix, str) else " ".join(source.prefix or [])
        writer.writerow(
            (source.name, repr(source.weight), source.stderr, source.tokens, times, prefix)
        )
    return file.getvalue()


def read_csv(text: str) -> list[Part]:
    rows = list(csv.DictReader(io.StringIO(text)))
    try:
        return [
            Part(row["source"], row.get("prefix") or "", float(row["token_share"])) for row in rows
        ]
    except (KeyError, TypeError, ValueError):
        raise UserError("a table needs the columns source and token_share") from None


def read_weights(text: str) -> list[Part]:
    """`name: weight` as YAML or JSON, where it stands alone or under one key (RegMix, DoReMi)."""
    content: Any = read_yaml(text, "it")
    for key in ("train", "train_domain_weights", "domain_weights", "weights"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise UserError("it holds no weights by name")
    try:
        return [Part(str(name), "", float(weight)) for name, weight in content.items()]
    except (TypeError, ValueError) as error:
        raise UserError(f"a weight is no number: {error}") from None


def write_stages(plan: Plan) -> str:
    """`mixture` of a configuration for `fastmix train`; a plan of phases has `stages` too."""
    return to_yaml(plan.notes, {"mixture": plan.mixture.weights})


def read_stages(given: Given) -> list[Blend]:
    """`mixture` and `stages` of a configuration, with weights by name."""
    content = from_yaml(given.text)
    first, later = content.get("mixture"), content.get("stages", [])
    if not isinstance(first, dict) or not isinstance(later, list):
        raise UserError("there is no `mixture: {name: weight}`")
    entries = [{"name": "first", "from_tokens": 0, "mixture": first}, *later]
    found = []
    for at, stage in enumerate(entries):
        weights = stage.get("mixture") if isinstance(stage, dict) else None
        if not isinstance(weights, dict):
            raise UserError(f"stages.{at - 1} has no `mixture: {{name: weight}}`")
        begins = int(a_number(stage.get("from_tokens"), f"stages.{at - 1}.from_tokens"))
        found.append(
            Blend(
                [Part(str(name), "", a_number(w, str(name))) for name, w in weights.items()],
                stage=str(stage.get("name")) if len(entries) > 1 else "",
                begins=begins,
                begins_unit="tokens",
                begins_tokens=begins,
            )
        )
    return found
