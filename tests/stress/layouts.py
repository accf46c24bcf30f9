"""The runs that the campaigns of faults hurt: every layout and every kind of run, tiny.

A campaign runs each of them once without a fault, and compares all others with that by `outcome`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from fastmix_mega.files import read_jsonl
from tests.tiny import chat_settings, tiny_settings, write_conversations, write_corpora

CHANGING = ("tokens_per_second", "ranks", "restarts")
"""Fields of metrics.jsonl that another start may change."""
STEPS, EVERY = 12, 3
"""Of a run, and between two checkpoints of it."""


@dataclass(frozen=True)
class Layout:
    """A run: its verb, how many processes share it, and how."""

    processes: int
    parallel: dict[str, Any]
    """Of the configuration."""
    verb: str = "search"
    search: dict[str, Any] | None = None
    """What the search does otherwise than `tiny_settings`."""
    conversations: bool = False


LAYOUTS = {
    "ZeRO 1": Layout(2, {}),
    "TP2": Layout(2, {"tensor": 2, "sequence": True}),
    "PP2": Layout(2, {"pipeline": 2}),
    "CP2": Layout(2, {"context": 2}),
    "TP2 x PP2": Layout(4, {"tensor": 2, "pipeline": 2}),
    "ZeRO 2": Layout(2, {"zero": 2}),
    "ZeRO 3": Layout(2, {"zero": 3}, verb="train"),
    "body scores": Layout(2, {}, search={"answer": "surface", "scores": "body"}),
    "SFT": Layout(2, {}, verb="train", conversations=True),
}


def write_all_corpora(directory: Path) -> None:
    """What all layouts read."""
    directory.mkdir()
    write_corpora(directory)
    write_conversations(directory)


def write_config(directory: Path, corpora: Path, layout: Layout) -> Path:
    """A configuration in a new folder, whose run folder is `run` beside it; returns its path."""
    directory.mkdir()
    make: Callable[[Path, Path], dict[str, Any]]
    make = chat_settings if layout.conversations else tiny_settings
    settings = make(corpora, directory / "run")
    held_out = {key: settings["targets"][1][key] for key in ("name", "prefix")}
    settings["evaluation"] = {"every": 4, "sequences": 4, "sets": [held_out]}
    settings["checkpoint"] = {"every": EVERY, "keep": 2}
    settings["train"] |= {"steps": STEPS, "global_batch": 4}
    settings["search"] |= {"every": 2, "warmup": 4, "target_batch": 4}
    settings["parallel"] = layout.parallel
    if layout.verb == "train":
        settings["mixture"] = {"alpha": 0.4, "beta": 0.3, "gamma": 0.2, "delta": 0.1}
        del settings["search"]
    elif layout.search:
        del settings["search"]["score_tokens"]
        settings["search"] |= layout.search
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def outcome(run_dir: Path) -> dict[str, object]:
    """What must be equal bit for bit (times and speeds differ)."""
    rows = {name: _rows(run_dir / f"{name}.jsonl") for name in ("metrics", "history")}
    return {
        "metrics": [without_times(row) for row in rows["metrics"]],
        "history": [{**row, "seconds": 0} for row in rows["history"]],
        "mixture.json": (run_dir / "mixture.json").read_text(),
        "checkpoint": _files_of_latest(run_dir / "checkpoints"),
        "partial": sorted(path.name for path in (run_dir / "checkpoints").glob("*.partial")),
    }


def _files_of_latest(folder: Path) -> dict[str, str]:
    """Digests of what every file of the newest checkpoint holds.

    Not of the files: pickle writes a text once or twice, by whether it is one object or two equal
    ones, which a restart changes.
    """
    latest = folder / (folder / "latest").read_text().strip()
    found = {"step": latest.name}
    for path in sorted(latest.glob("*.pt")):
        digest = hashlib.sha256()
        _digest(torch.load(path, weights_only=False), digest)
        found[path.name] = digest.hexdigest()
    return found


def _digest(value: Any, digest: Any) -> None:
    """Add what a checkpoint holds to a digest, to the last bit."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
        return
    inner = value if isinstance(value, dict | list | tuple) else getattr(value, "__dict__", None)
    digest.update(type(value).__name__.encode())
    if inner is None:
        digest.update(repr(value).encode())
    elif isinstance(inner, dict):
        for key in sorted(inner, key=repr):
            digest.update(repr(key).encode())
            _digest(inner[key], digest)
    else:
        for each in inner:
            _digest(each, digest)


def _rows(path: Path) -> list[dict[str, Any]]:
    return read_jsonl(path) if path.exists() else []


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl without what another start may change."""
    return {name: value for name, value in row.items() if name not in CHANGING}
