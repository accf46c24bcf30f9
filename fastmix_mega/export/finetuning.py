"""Fine-tuning trainers: they read rows (conversations), of which each has its own length.

Three kinds: rows drawn by probability (LLaMA-Factory, ms-swift), a share of rows kept so that none
is read twice (TRL, Axolotl), rows counted in epochs (open-instruct, Megatron-Bridge).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from fastmix_mega.errors import UserError
from fastmix_mega.export.blend import Blend, Given
from fastmix_mega.export.plan import Part, Plan
from fastmix_mega.export.text import a_number, entries, from_json, from_yaml, required, to_yaml
from fastmix_mega.export.units import decimal, epochs_of, kept_of, row_shares_of


def write_llama_factory(plan: Plan) -> str:
    """`dataset`, `mix_strategy` and `interleave_probs`; names are those of dataset_info.json."""
    parts = plan.parts("{name}", counted=True)
    for part in parts:
        if "," in part.path:
            raise UserError(f"LLaMA-Factory splits at commas, so {part.path!r} cannot be given")
    shares = row_shares_of(parts, "LLaMA-Factory")
    content = {
        "dataset": ",".join(part.path for part in parts),
        "mix_strategy": "interleave_over",
        "interleave_probs": ",".join(decimal(share) for share in shares),
    }
    return to_yaml(plan.notes, content)


def read_llama_factory(given: Given) -> list[Blend]:
    content = from_yaml(given.text)
    strategy = str(content.get("mix_strategy", "concat"))
    if not strategy.startswith("interleave") or content.get("interleave_probs") is None:
        raise UserError(
            f"mix_strategy {strategy} without interleave_probs reads every row once: the mixture "
            "is the data sets' sizes"
        )
    (names,) = required(content, "dataset")
    names = [name.strip() for name in str(names).split(",")]
    shares = [
        a_number(share.strip(), "interleave_probs")
        for share in str(content["interleave_probs"]).split(",")
    ]
    parts = _pairs(names, shares, "dataset", "interleave_probs")
    return [Blend(parts, "rows", notes=_ends_early(strategy == "interleave_under"))]


def write_ms_swift(plan: Plan) -> str:
    """A configuration for `swift sft FILE`."""
    parts = plan.parts(None, counted=True)
    for part in parts:
        if any(mark in part.path for mark in "#:") and "://" not in part.path:
            raise UserError(f"ms-swift splits at # and :, so {part.path!r} cannot be given")
    content = {
        "dataset": [part.path for part in parts],
        "interleave_prob": row_shares_of(parts, "ms-swift"),
        "stopping_strategy": "all_exhausted",
    }
    return to_yaml(plan.notes, content)


def read_ms_swift(given: Given) -> list[Blend]:
    content = from_yaml(given.text)
    names, shares = content.get("dataset"), content.get("interleave_prob")
    if not isinstance(names, list) or not isinstance(shares, list):
        raise UserError("`dataset` and `interleave_prob` must be lists of one length")
    values = [a_number(share, "interleave_prob") for share in shares]
    parts = _pairs([str(name) for name in names], values, "dataset", "interleave_prob")
    # Its default.
    early = content.get("stopping_strategy", "first_exhausted") == "first_exhausted"
    return [Blend(parts, "rows", notes=_ends_early(early))]


def write_trl(plan: Plan) -> str:
    """`datasets[].fraction`: target shares of rows; TRL keeps the most rows without repetition."""
    parts = plan.parts(None, counted=True)
    shares = row_shares_of(parts, "TRL")
    datasets = [
        {"path": part.path, "split": "train", "fraction": share}
        for part, share in zip(parts, shares, strict=True)
    ]
    return to_yaml(plan.notes, {"datasets": datasets})


def read_trl(given: Given) -> list[Blend]:
    parts, leaves = [], []
    for entry in entries(from_yaml(given.text), "datasets"):
        path, fraction = required(entry, "path", "fraction")
        parts.append(Part("", str(path), a_number(fraction, f"{path}: fraction")))
        leaves.append(_leaf(entry, "name", "data_files", "split"))
    return [Blend(parts, "rows", leaves=leaves)]


def write_axolotl(plan: Plan) -> str:
    """`datasets[].split`, a slice of rows: the first share kept, which every version reads."""
    parts = plan.parts(None, counted=True)
    datasets = [
        {"path": part.path, "type": "chat_template", "split": f"train[:{rows}]"}
        for part, rows in zip(parts, kept_rows(parts, "Axolotl"), strict=True)
    ]
    return to_yaml(plan.notes, {"datasets": datasets})


def write_axolotl_weight(plan: Plan) -> str:
    """`datasets[].weight` in (0, 1], the share kept."""
    parts = plan.parts(None, counted=True)
    datasets = [
        {"path": part.path, "type": "chat_template", "weight": kept}
        for part, kept in zip(parts, kept_of(parts, "Axolotl"), strict=True)
    ]
    return to_yaml(plan.notes, {"datasets": datasets})


def read_axolotl(given: Given) -> list[Blend]:
    """Shares kept, by `weight` or by a slice of `split`; slices in rows need the sizes."""
    parts, leaves, unread = [], [], []
    kinds = set()
    for entry in entries(from_yaml(given.text), "datasets"):
        (path,) = required(entry, "path")
        rows, share = _slice(str(entry.get("split") or ""), str(path))
        if entry.get("weight") is not None:
            share *= a_number(entry["weight"], f"{path}: weight")
            unread.append(str(path))
        kinds.add("slice" if rows is not None else "share")
        parts.append(Part("", str(path), float(rows) if rows is not None else share))
        leaves.append(_leaf(entry, "name", "data_files"))
    if kinds == {"slice", "share"}:
        raise UserError("some splits are slices in rows and others are not; give all of one kind")
    notes = []
    if unread:
        notes.append(
            "`weight` is a share of rows kept, and only versions that have it read it: 0.19.0 "
            f"drops the key without a word ({', '.join(unread)})"
        )
    return [Blend(parts, "rows" if kinds == {"slice"} else "kept", notes=notes, leaves=leaves)]


def write_open_instruct(plan: Plan) -> str:
    """`dataset_mixer_list`: names and amounts in turn. An amount with a point is a number of
    passes; without one it would be a number of rows."""
    parts = plan.parts(None, counted=True)
    words = [
        word
        for part, times in zip(parts, passes(plan, parts, "open-instruct"), strict=True)
        for word in (part.path, decimal(times))
    ]
    return to_yaml(
        plan.notes, {"dataset_mixer_list": words, "dataset_mixer_list_splits": ["train"]}
    )


def read_open_instruct(given: Given) -> list[Blend]:
    """`dataset_mixer_list`, or the older mapping `dataset_mixer`."""
    content = from_yaml(given.text)
    mixer = content.get("dataset_mixer_list", content.get("dataset_mixer"))
    if isinstance(mixer, dict):
        mixer = [word for name, amount in mixer.items() for word in (name, repr(amount))]
    elif isinstance(mixer, str):
        mixer = mixer.split()
    if not isinstance(mixer, list) or not mixer or len(mixer) % 2:
        raise UserError("`dataset_mixer_list` must hold names and amounts in turn")
    parts, counts = [], set()
    for name, amount in zip(mixer[::2], mixer[1::2], strict=True):
        counts.add("." not in str(amount))
        parts.append(Part("", str(name), a_number(amount, str(name))))
    if len(counts) > 1:
        raise UserError(
            "some amounts have a point (passes) and others have none (rows): 1 is one row and 1.0 "
            "is all of them; give all of one kind"
        )
    rows = counts == {True}
    notes = ["amounts without a point are rows"] if rows else []
    return [Blend(parts, "rows" if rows else "epochs", notes=notes)]


def write_bridge_sft(plan: Plan) -> str:
    """`source` and `source_weights` of Megatron-Bridge's DirectHFSFTDatasetConfig: epochs."""
    parts = plan.parts(None, counted=True)
    content = {
        "source": [{"path_or_dataset": part.path, "split": "train"} for part in parts],
        "source_weights": [
            float(decimal(times)) for times in passes(plan, parts, "Megatron-Bridge")
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def read_bridge_sft(given: Given) -> list[Blend]:
    content = from_json(given.text)
    sources, weights = entries(content, "source"), content.get("source_weights")
    if weights is None:
        weights = [1.0] * len(sources)
    if not isinstance(weights, list) or len(weights) != len(sources):
        raise UserError("`source` and `source_weights` must be lists of one length")
    parts, leaves = [], []
    for source, weight in zip(sources, weights, strict=True):
        path = source.get("path_or_dataset") or source.get("dataset_name")
        if not path:
            raise UserError("a source needs path_or_dataset or dataset_name")
        parts.append(Part("", str(path), a_number(weight, f"{path}: source_weights")))
        leaves.append(_leaf(source, "subset", "split"))
    return [Blend(parts, "epochs", leaves=leaves)]


def kept_rows(parts: Sequence[Part], reader: str) -> list[int]:
    """How many rows of each part are kept. Raises: UserError if a part keeps none."""
    shares = kept_of(parts, reader)
    found = []
    for part, share in zip(parts, shares, strict=True):
        if part.rows is None:
            raise UserError(
                f"{reader} must be told rows, and nobody has counted those of {part.source}; give "
                "a mixture whose prefixes lead to the token files of the same rows"
            )
        rows = round(share * part.rows)
        if rows == 0:
            raise UserError(f"{reader}: {part.source} would keep none of its {part.rows} rows")
        found.append(rows)
    return found


def passes(plan: Plan, parts: Sequence[Part], reader: str) -> list[float]:
    """Epochs of each part at the budget; without one, of the most that repeats nothing."""
    if plan.budget_tokens is None:
        return kept_of(parts, reader)
    return epochs_of(parts, plan.budget_tokens, reader)


def subset_notes(plan: Plan) -> list[str]:
    """What a mixture by leaving rows out costs in data."""
    parts = plan.parts(plan.paths or "{name}", counted=True)
    kept = kept_of(parts, "a trainer that leaves rows out")
    total = sum(part.tokens or 0 for part in parts)
    left = sum(share * (part.tokens or 0) for share, part in zip(kept, parts, strict=True))
    lost = ", ".join(
        f"{part.source} {1 - share:.0%}"
        for share, part in zip(kept, parts, strict=True)
        if 1 - share > 0.005
    )
    notes = [
        f"The cost in data: {total - left:,.0f} of {total:,} tokens are left out"
        + (f" ({lost})." if lost else ".")
    ]
    if plan.budget_tokens is not None:
        notes.append(
            f"The rest is read {plan.budget_tokens / left:.2f} times in {plan.budget_tokens:,} "
            "tokens."
        )
    return notes


def interleave_notes(plan: Plan) -> list[str]:
    """How many rows are drawn until every source has been read."""
    parts = plan.parts(plan.paths or "{name}", counted=True)
    shares = row_shares_of(parts, "a trainer that draws rows")
    needed = [(part.rows or 0) / share for part, share in zip(parts, shares, strict=True)]
    slowest = max(range(len(parts)), key=needed.__getitem__)
    return [
        "Each number is the probability of drawing a row, so that tokens come in the mixture's "
        "shares at the rows' mean lengths.",
        f"It goes on until every source was read: {needed[slowest]:,.0f} rows, for "
        f"{parts[slowest].source}; set max_steps to end before.",
    ]


def epoch_notes(plan: Plan) -> list[str]:
    """At which budget the numbers hold."""
    at = (
        "of the largest mixture in which no source is read twice (no --budget-tokens was given)"
        if plan.budget_tokens is None
        else f"at {plan.budget_tokens:,} tokens; another budget needs other numbers"
    )
    return [f"Each number says how often all rows of its source are read, {at}."]


def _pairs(names: list[str], shares: list[float], *keys: str) -> list[Part]:
    if len(names) != len(shares):
        raise UserError(f"`{keys[0]}` has {len(names)} entries and `{keys[1]}` {len(shares)}")
    return [Part("", name, share) for name, share in zip(names, shares, strict=True)]


def _ends_early(early: bool) -> list[str]:
    return ["the run ends with the first source that is read through"] if early else []


def _leaf(entry: dict[str, object], *keys: str) -> str:
    return " ".join(f"{key}={entry[key]}" for key in keys if entry.get(key))


def _slice(split: str, where: str) -> tuple[int | None, float]:
    """`train[:N]` as rows, `train[:N%]` as a share; no slice is the whole."""
    if "[" not in split:
        return None, 1.0
    inner = split[split.index("[") + 1 :].rstrip("]")
    if not inner.startswith(":"):
        raise UserError(f"{where}: only slices from the first row can be taken, not {split!r}")
    if inner.endswith("%"):
        return None, a_number(inner[1:-1], f"{where}: split") / 100
    return int(a_number(inner[1:], f"{where}: split")), 1.0
