"""What a command may write: no input, and no file that was there before and is not its own.

Every tool claims its outputs here before it writes anything. Files are compared by identity
(device and inode), so that links, `..` and other spellings hide nothing. A lock beside the output
names the process that writes it, and tells a later one what a killed process has left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastmix_mega.data import remote
from fastmix_mega.data.indexed_manifest import (
    manifest_path,
    mask_prefix,
    old_manifest_path,
    read_manifest,
)
from fastmix_mega.errors import UserError
from fastmix_mega.files import Identity, identity_of, remove_unfinished, write_atomic
from fastmix_mega.locking import Use, hold_lock

COMMAND = "fastmix data"
"""What a lock names as its holder."""
RECIPE = "recipe"
"""The field of manifests and locks that holds the digest of all that the content depends on."""


@dataclass(frozen=True)
class Output:
    """The files that a command makes under one name."""

    name: Path
    """For messages; the lock is `<name>.lock`."""
    files: tuple[Path, ...]
    """Written, replaced or removed, under names of their own while they are made."""
    folder: Path | None = None
    """Of unfinished work."""
    recipe: str | None = None
    """Digest of all that the content depends on; what the same recipe made may be made again."""
    made_before: frozenset[str] = frozenset()
    """Recipes of what stands there now, besides those of a lock."""
    ours: frozenset[Path] = field(default=frozenset())
    """Files that are known to be this command's, whatever the recipe."""

    @property
    def lock(self) -> Path:
        return Path(f"{self.name}.lock")


def recipe_of(**content: Any) -> str:
    """A digest of plain data."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def describe_file(path: str | Path) -> list[Any]:
    """Plain data by which a changed file is known: path, bytes, nanoseconds of its last change."""
    try:
        status = os.stat(path)
    except OSError:
        return [str(path)]
    return [str(path), status.st_size, status.st_mtime_ns]


def token_output(
    prefix: Path, recipe: str, folder: Path | None = None, begun: Iterable[str] = ()
) -> Output:
    """Everything that a tool may write for a prefix.

    Args:
        prefix: without .bin/.idx.
        recipe: see `Output`.
        folder: of unfinished work.
        begun: recipes of the unfinished work.
    """
    if not prefix.name:
        raise UserError(f"{prefix} is a folder, not the prefix of files")
    pairs = [f"{base}.{kind}" for base in (prefix, mask_prefix(prefix)) for kind in ("bin", "idx")]
    reports = [f"{prefix}.bad.jsonl", f"{prefix}.origins.parquet"]
    names = [*pairs, *(f"{name}.partial" for name in pairs), manifest_path(prefix), *reports]
    made_before = set(begun)
    # A broken manifest is no reason to replace what stands beside it.
    with contextlib.suppress(UserError):
        manifest = read_manifest(str(prefix))
        if manifest is not None:
            made_before.add(str(manifest.made_by.get(RECIPE)))
            old = old_manifest_path(prefix)
            names += [] if os.path.lexists(manifest_path(prefix)) else [old]
    return Output(
        prefix, tuple(map(Path, names)), folder, recipe, frozenset(made_before), frozenset()
    )


def prefix_inputs(prefix: str | Path) -> list[str]:
    """The files that belong to a prefix which is read."""
    pairs = [f"{base}.{kind}" for base in (prefix, mask_prefix(prefix)) for kind in ("bin", "idx")]
    return [*pairs, manifest_path(prefix), old_manifest_path(prefix)]


def tokenizer_inputs(tokenizer: str | Path) -> list[str]:
    """The files that a tokenizer is read from, and what stands beside them for it."""
    path = Path(tokenizer)
    folder = path if path.is_dir() else path.parent
    beside = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    return [str(path), *(str(folder / name) for name in beside)]


@contextlib.contextmanager
def claim(
    outputs: Sequence[Output], inputs: Iterable[str | Path], overwrite: bool = False
) -> Iterator[None]:
    """Make sure that the outputs may be written, and lock them while the block runs.

    Args:
        outputs: all that the command writes.
        inputs: all that it reads; what does not exist does not count.
        overwrite: replace finished files of another origin. Inputs are never replaced.

    Raises:
        UserError: naming the file that stands in the way. Nothing was written.
    """
    _require_apart(outputs, inputs)
    with contextlib.ExitStack() as stack:
        for output in outputs:
            output.lock.parent.mkdir(parents=True, exist_ok=True)
            use = Use(COMMAND, str(output.name), "another output", record={RECIPE: output.recipe})
            lock = stack.enter_context(hold_lock(output.lock, use))
            known = set(output.made_before)
            if lock.previous is not None:
                known.add(str(lock.previous.record.get(RECIPE)))
            try:
                _require_ours(output, known, overwrite)
            except UserError:
                # What a killed process left is still that one's.
                lock.keep_previous = True
                raise
            if lock.previous is not None:
                for file in output.files:
                    remove_unfinished(file)
        yield


def _require_apart(outputs: Sequence[Output], inputs: Iterable[str | Path]) -> None:
    read = {
        found: str(name)
        for name in inputs
        if not remote.is_remote(str(name)) and (found := identity_of(name)) is not None
    }
    written: dict[str, Path] = {}
    for output in outputs:
        if remote.is_remote(str(output.name)):
            raise UserError(f"{output.name}: outputs go to disks; copy them to object storage")
        for path in (*output.files, output.lock, *_inside(output.folder)):
            found = identity_of(path)
            if found is not None and found in read:
                raise UserError(
                    f"{path} would be written, but is the input {read[found]}; name another output"
                )
            place = os.path.join(os.path.realpath(path.parent), path.name)
            if place in written:
                raise UserError(f"{path} would be written twice; name another output")
            written[place] = path


def _inside(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    return [Path(base) / name for base, _, names in os.walk(folder) for name in names]


def _require_ours(output: Output, known: set[str], overwrite: bool) -> None:
    for path in output.files:
        if not os.path.lexists(path) or path in output.ours:
            continue
        if path.is_dir():
            raise UserError(f"{path} is a folder, but a file would be written; name another output")
        if overwrite or (output.recipe is not None and output.recipe in known):
            continue
        what = "was made from other inputs or settings" if known else "is there already"
        raise UserError(f"{path} {what}; name another output, or replace it with --overwrite")


def write_if_changed(path: Path, content: bytes) -> None:
    """Write a file unless it holds this content; what is made of it stays as it is, then."""
    try:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    except FileNotFoundError:
        pass
    write_atomic(path, content)


def identify(paths: Iterable[str | Path]) -> dict[str, str]:
    """Which of some files are one, given under two names: the later name by the earlier one."""
    first: dict[Identity, str] = {}
    again: dict[str, str] = {}
    for path in map(str, paths):
        found = None if remote.is_remote(path) else identity_of(path)
        if found is None:
            continue
        if found in first:
            again[path] = first[found]
        first.setdefault(found, path)
    return again
