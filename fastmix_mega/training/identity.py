"""What makes two runs the same run: so that a run folder is only ever continued, never mixed up.

`run.json` in the run folder records the verb and the data; `config.yaml` the configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmix_mega.config.parse import read_settings, validated
from fastmix_mega.config.schema import Config
from fastmix_mega.data.indexed_manifest import read_manifest
from fastmix_mega.files import write_atomic, write_json
from fastmix_mega.mixture.file import mixture_path
from fastmix_mega.reading import read_json
from fastmix_mega.training.seed_folders import seed_folders

FIXED = ("run", "verb", "model")
"""Differences that no `--allow-changed` lets pass: the checkpoint would not fit."""


@dataclass(frozen=True)
class Difference:
    """One thing in which the run in the folder is another one."""

    name: str
    """A configuration key, `verb`, `data:PREFIX` or `run`."""
    text: str

    @property
    def can_be_allowed(self) -> bool:
        return self.name.split(".")[0] not in FIXED

    def __str__(self) -> str:
        hint = f" (--allow-changed {self.name} to go on all the same)"
        return self.text + (hint if self.can_be_allowed else "")


FREE_SECTIONS = ("run_dir", "log", "checkpoint", "guards", "parallel", "kernels")
"""A continued run may log, save, be laid out over processes and computed otherwise than before."""


def record_run(config: Config, mode: str, start: dict[str, Any] | None = None) -> None:
    """Make the run folder, and write what the run is: config.yaml and run.json.

    Args:
        config: the run.
        mode: `search` or `train`.
        start: what it starts from; a run that goes on keeps what it recorded at its start.
    """
    directory = Path(config.run_dir)
    if start is None and config.init_from is not None:
        start = starting_point(config)
    content = _identity(config, mode)
    write_json(directory / "run.json", content if start is None else content | {"init_from": start})
    write_atomic(directory / "config.yaml", config.to_yaml())


def starting_point(config: Config) -> dict[str, Any] | None:
    """What the run in the folder has started from; None if it drew its weights."""
    try:
        found = read_json(Path(config.run_dir) / "run.json").get("init_from")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def differences(
    config: Config, verb: str, own_run: bool = True, free_sections: Collection[str] = ()
) -> list[Difference]:
    """How the run in the configuration's folder differs from this one; empty if it may go on.

    Only a folder that holds results is compared: checkpoints, or a finished run's mixture.json.

    Args:
        config: the run.
        verb: `search` or `train`.
        own_run: whether the folder itself holds the checkpoints of a run. Other methods have
            their runs, if any, in folders below, which are compared one by one.
        free_sections: sections that may differ.
    """
    directory = Path(config.run_dir)
    checkpoints = any(directory.glob("checkpoints/step_*"))
    finished = (directory / "mixture.json").exists()
    begun = not own_run and (directory / "run.json").exists()
    seeds = seed_folders(directory)
    if seeds and not (directory / "run.json").exists():
        names = ", ".join(path.name for path in seeds[:3])
        return [Difference("run", f"it holds the runs of several seeds ({names})")]
    if not checkpoints and not finished and not begun:
        return []
    if not checkpoints and not begun:
        return [Difference("run", "it holds a finished run without a checkpoint to go on from")]
    try:
        there = read_json(directory / "run.json")
        path = directory / "config.yaml"
        before = validated(read_settings(path), type(config), str(path))
    except (OSError, ValueError, RecursionError):
        return [Difference("run", "it holds checkpoints, but no readable run.json and config.yaml")]
    found = list(_compare("", before.model_dump(mode="json"), config.model_dump(mode="json")))
    found = [each for each in found if each.name.split(".")[0] not in free_sections]
    here = _identity(config, verb)
    if there.get("verb") != here["verb"]:
        found.append(Difference("verb", f"fastmix {there.get('verb')} there, fastmix {verb} here"))
    for prefix, digest in here["data"].items():
        if there.get("data", {}).get(prefix, digest) != digest:
            found.append(Difference(f"data:{prefix}", f"the data of {prefix} has changed"))
    tokenizer = there.get("tokenizer", here["tokenizer"])
    if tokenizer != here["tokenizer"]:
        found.append(
            Difference(
                "tokenizer",
                f"the tokenizer was {tokenizer[:12]}... there, {here['tokenizer'][:12]}... here",
            )
        )
    return found


def _identity(config: Config, mode: str) -> dict[str, Any]:
    entries = (*config.sources, *config.targets, *config.evaluation.sets)
    prefixes = sorted({prefix for entry in entries for prefix in entry.prefixes})
    manifests = {prefix: read_manifest(prefix) for prefix in prefixes}
    identity: dict[str, Any] = {
        "verb": mode,
        "tokenizer": hashlib.sha256(Path(config.tokenizer).read_bytes()).hexdigest(),
        "data": {
            prefix: None if manifest is None else manifest.content_sha256
            for prefix, manifest in manifests.items()
        },
    }
    if mode == "search" and config.search.reuse is not None:
        with suppress(OSError):  # A missing file is reported where the mixture is read.
            content = mixture_path(config.search.reuse.mixture).read_bytes()
            identity["data"][config.search.reuse.mixture] = hashlib.sha256(content).hexdigest()
    return identity


def _compare(path: str, before: Any, now: Any) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if path or key not in FREE_SECTIONS:
                inner = f"{path}.{key}" if path else key
                yield from _compare(inner, before.get(key), now.get(key))
    elif before != now:
        yield Difference(path, f"{path} is {before!r} there, {now!r} here")
