"""Whether the checkpoints of a run folder are whole, and hold data and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastmix_mega.checkpoint.io import UnreadableTensors, load_tensors
from fastmix_mega.checkpoint.manifest import NAME, DamagedCheckpoint, problems, read_manifest
from fastmix_mega.checkpoint.store import checkpoint_steps


@dataclass(frozen=True)
class Examined:
    """What was found of one checkpoint."""

    step: int
    sha256: str = ""
    """Of its manifest, which names the SHA-256 of every file: what two people compare."""
    files: int = 0
    bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    """Files that its manifest does not name; nothing reads them but a change of layout."""


def examine(run: Path) -> Iterator[Examined]:
    """Every checkpoint of a run folder, the oldest first; each file is read whole."""
    for step in checkpoint_steps(run / "checkpoints"):
        yield _examine(step, run / "checkpoints" / f"step_{step}")


def _examine(step: int, directory: Path) -> Examined:
    if directory.is_symlink():
        return Examined(step, wrong=[f"{directory} is a link"])
    try:
        manifest = read_manifest(directory)
        sha256 = hashlib.sha256((directory / NAME).read_bytes()).hexdigest()
    except DamagedCheckpoint as damage:
        return Examined(step, wrong=[f"{directory}: {damage}"])
    wrong = [f"{directory}: {text}" for text in problems(directory, manifest, list(manifest.files))]
    if manifest.step != step:
        wrong.append(f"{directory} was saved after step {manifest.step}")
    if not wrong:
        wrong += [text for name in manifest.files for text in _programs(directory / name)]
    # A link is named, not followed.
    there = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_symlink() or path.is_file()
    }
    size = sum(record.bytes for record in manifest.files.values())
    unnamed = sorted(there - {*manifest.files, NAME})
    return Examined(step, sha256, len(manifest.files), size, wrong, unnamed)


def _programs(path: Path) -> Iterator[str]:
    """What keeps a file of tensors from being opened."""
    if path.suffix == ".pt":
        try:
            load_tensors(path, "cpu", mmap=True)
        except UnreadableTensors as error:
            yield str(error)
