"""What makes two runs the same run: so that a run folder is only ever continued, never mixed up.

`run.json` in the run folder records the verb and the data; `config.yaml` the configuration.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastmix_mega.config import Config, load_config
from fastmix_mega.data.indexed import read_manifest
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_atomic, write_json

FREE_SECTIONS = ("run_dir", "log", "checkpoint", "parallel")
"""A continued run may log, save and be laid out over processes otherwise than before."""


def record_run(config: Config, mode: str) -> None:
    """Make the run folder, and write what the run is: config.yaml and run.json."""
    directory = Path(config.run_dir)
    write_json(directory / "run.json", _identity(config, mode))
    write_atomic(directory / "config.yaml", config.to_yaml())


def differences(config: Config, mode: str) -> list[str]:
    """How the run in the configuration's folder differs from this one; empty if it may go on.

    Only a folder that holds results is compared: checkpoints, or a finished run's mixture.json.
    """
    directory = Path(config.run_dir)
    checkpoints = any(directory.glob("checkpoints/step_*"))
    finished = (directory / "mixture.json").exists()
    if not checkpoints and not finished:
        return []
    if not checkpoints:
        return ["it holds a finished run without a checkpoint to go on from"]
    try:
        there = json.loads((directory / "run.json").read_bytes())
        before = load_config(directory / "config.yaml")
    except (OSError, ValueError, UserError):
        return ["it holds checkpoints, but no readable run.json and config.yaml"]
    found = list(_compare("", before.model_dump(mode="json"), config.model_dump(mode="json")))
    here = _identity(config, mode)
    if there.get("verb") != here["verb"]:
        found.append(f"fastmix {there.get('verb')} there, fastmix {mode} here")
    for prefix, digest in here["data"].items():
        if there.get("data", {}).get(prefix, digest) != digest:
            found.append(f"the data of {prefix} has changed")
    return found


def _identity(config: Config, mode: str) -> dict[str, Any]:
    entries = (*config.sources, *config.targets, *config.evaluation.sets)
    prefixes = sorted({prefix for entry in entries for prefix in entry.prefixes})
    manifests = {prefix: read_manifest(prefix) for prefix in prefixes}
    return {
        "verb": mode,
        "data": {
            prefix: None if manifest is None else manifest.bin_sha256
            for prefix, manifest in manifests.items()
        },
    }


def _compare(path: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if path or key not in FREE_SECTIONS:
                inner = f"{path}.{key}" if path else key
                yield from _compare(inner, before.get(key), now.get(key))
    elif before != now:
        yield f"{path} is {before!r} there, {now!r} here"
