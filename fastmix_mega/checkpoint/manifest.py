"""The manifest of a checkpoint: which files belong to it, how long they are, and their SHA-256.

Files that are not named (a converted copy added later, for example) are nobody's business.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fastmix_mega.errors import UserError
from fastmix_mega.files import write_json
from fastmix_mega.reading import read_json

NAME = "manifest.json"
PROCESSES = ("data", "tensor", "pipeline", "context")
"""Of a layout: the sizes whose product is the number of processes."""


class FileRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CheckpointManifest(BaseModel):
    """What stands in manifest.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Annotated[Literal["fastmix-checkpoint/1"], Field(alias="schema")] = (
        "fastmix-checkpoint/1"
    )
    step: Annotated[int, Field(ge=0)]
    """Training steps done."""
    world_size: Annotated[int, Field(gt=0)]
    layout: dict[str, int]
    """Sizes of the layout that saved it: data, tensor, pipeline, context, zero, sequence."""
    versions: dict[str, str]
    files: dict[str, FileRecord]
    """By path relative to the checkpoint's folder."""

    @model_validator(mode="after")
    def _fits_together(self) -> CheckpointManifest:
        """Nobody may be made to look for millions of files."""
        sizes = [self.layout.get(name, 1) for name in PROCESSES]
        if min(self.layout.values(), default=0) < 0 or math.prod(sizes) != self.world_size:
            raise ValueError("a layout of another number of processes")
        if self.world_size > len(self.files) and self.layout:
            raise ValueError("fewer files than processes")
        return self

    def write(self, directory: Path) -> None:
        content = self.model_dump(mode="json", by_alias=True)
        write_json(directory / NAME, content | {"sha256": _checksum(content)})


class DamagedCheckpoint(Exception):
    """A checkpoint that must not be used; the message says why."""


def read_manifest(directory: Path) -> CheckpointManifest:
    """Read and validate.

    Raises:
        DamagedCheckpoint: if it is missing, torn, or names a file outside of the checkpoint.
    """
    try:
        content = read_json(directory / NAME)
        if content.pop("sha256") != _checksum(content):
            raise ValueError("another checksum")
        manifest = CheckpointManifest.model_validate(content)
    except OSError as error:
        raise DamagedCheckpoint(f"{NAME}: {error.strerror}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise DamagedCheckpoint(f"{NAME} is broken") from None
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or name in ("", ".", NAME):
            raise DamagedCheckpoint(f"{NAME} names {name!r}, which is no file of a checkpoint")
    return manifest


def _checksum(content: dict[str, Any]) -> str:
    """SHA-256 of the manifest's own content: a flipped bit in it may still be valid JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def require_convertible(before: dict[str, int], now: dict[str, int]) -> None:
    """Raises: UserError if a checkpoint cannot go from one layout to the other."""
    for sizes in (before, now):
        if sizes["interleave"] > 1:
            raise UserError(
                "a run with parallel.interleave > 1 continues on the same layout only; start as "
                f"before: {before}"
            )
        if sizes["zero"] == 3:
            raise UserError(
                f"a run with ZeRO stage 3 continues on the same layout only; start as before: "
                f"{before}"
            )


def record_file(path: Path) -> FileRecord:
    """Length and checksum of a file; OSError if it cannot be read."""
    digest, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            length += len(block)
    return FileRecord(bytes=length, sha256=digest.hexdigest())


def problems(directory: Path, manifest: CheckpointManifest, names: Sequence[str]) -> list[str]:
    """What is wrong with some of a checkpoint's files; empty if nothing is."""
    found = []
    for name in names:
        path, wanted = directory / name, manifest.files.get(name)
        if wanted is None:
            found.append(f"{name} is not in the manifest")
            continue
        if path.is_symlink() or not path.resolve().is_relative_to(directory.resolve()):
            found.append(f"{name} leads out of the checkpoint")
            continue
        try:
            length = path.stat().st_size
            if length != wanted.bytes:
                found.append(f"{name} has {length} bytes instead of {wanted.bytes}")
            elif record_file(path) != wanted:
                found.append(f"{name} has another checksum")
        except OSError as error:
            found.append(f"{name}: {error.strerror}")
    return found
