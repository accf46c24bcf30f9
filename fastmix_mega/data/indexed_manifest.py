"""What stands beside indexed token files: `<prefix>.manifest.json`, and the loss mask's name."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastmix_mega.data import remote
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_json
from fastmix_mega.reading import parse_json

Count = Annotated[int, Field(ge=0)]


class MaskRecord(BaseModel):
    """What a manifest says of the loss mask."""

    model_config = ConfigDict(extra="allow", frozen=True)

    answers: Count
    """Tokens that count in the loss."""
    template: str | None = None
    """How conversations became text: `plain`, `raw`, or the SHA-256 of a Hugging Face template."""
    bin_sha256: str
    idx_sha256: str


class Manifest(BaseModel):
    """What `<prefix>.manifest.json` says of the files beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal["fastmix-tokens/1"] = "fastmix-tokens/1"
    documents: Count
    tokens: Count
    dtype: str
    bin_sha256: str
    idx_sha256: str
    tokenizer_sha256: str | None = None
    vocab_size: Count | None = None
    eod: Count | None = None
    bos: Count | None = None
    """What starts every document, if anything; earlier versions did not say."""
    made_by: dict[str, Any] = {}
    mask: MaskRecord | None = None
    """None where every token counts."""

    @property
    def content_sha256(self) -> str:
        """Of the tokens, and of the loss mask where there is one."""
        if self.mask is None:
            return self.bin_sha256
        return hashlib.sha256((self.bin_sha256 + self.mask.bin_sha256).encode()).hexdigest()

    @property
    def vocabulary(self) -> dict[str, Any]:
        """The fields that say what the tokens mean."""
        return self.model_dump(include={"tokenizer_sha256", "vocab_size", "eod", "bos"})

    def write(self, prefix: str | Path) -> None:
        left_out = {"mask"} if self.mask is None else set()
        # Merged from files that do not say it.
        left_out |= {"bos"} - self.model_fields_set
        write_json(manifest_path(prefix), self.model_dump(mode="json", exclude=left_out))


def manifest_path(prefix: str | Path) -> str:
    """Where a prefix's manifest is written. No corpus has such a name by chance."""
    return f"{prefix}.manifest.json"


def old_manifest_path(prefix: str | Path) -> str:
    """Where earlier versions wrote it. A user's own file may have this name too."""
    return f"{prefix}.json"


def read_manifest(prefix: str) -> Manifest | None:
    """The manifest, or None if there is no file; UserError if it is broken."""
    stored = _stored_manifest(prefix)
    if stored is None:
        return None
    path, content = stored
    try:
        return Manifest.model_validate(parse_json(content))
    except (ValidationError, ValueError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{path} is not a manifest ({reason}); preprocess the data again") from None


def _stored_manifest(prefix: str) -> tuple[str, bytes] | None:
    """The path and content of a prefix's manifest, under its name or the old one."""
    path, old = manifest_path(prefix), old_manifest_path(prefix)
    try:
        return path, remote.read_bytes(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    try:
        if not remote.is_remote(old) and not os.path.isfile(old):
            return None
        with remote.open_remote(old) if remote.is_remote(old) else open(old, "rb") as file:
            head = file.read(_HEAD)
            # A corpus of many gigabytes may lie here: its start tells that it is no manifest.
            return (old, head + file.read(remote.LARGEST)) if _starts_as_manifest(head) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {old}: {error.strerror}") from None


_HEAD = 4096
"""Bytes by which a manifest is told from other JSON."""


def _starts_as_manifest(head: bytes) -> bool:
    """Whether a file was written as a manifest, even if it was damaged since."""
    return not head.strip() or b'"fastmix-tokens/' in head or b'"bin_sha256"' in head


def mask_prefix(prefix: str | Path) -> str:
    """Of the loss mask that belongs to a prefix."""
    return f"{prefix}.mask"


def forget_manifest(prefix: str | Path, masked: bool) -> None:
    """Before new files get their names: an old manifest or mask must never stand beside them."""
    path = Path(manifest_path(prefix))
    if path.exists():
        path.unlink()
    else:
        # Under the old name only what is a manifest goes: it may be a file of the user's.
        with contextlib.suppress(UserError):
            if read_manifest(str(prefix)) is not None:
                Path(old_manifest_path(prefix)).unlink(missing_ok=True)
    for kind in () if masked else ("bin", "idx"):
        Path(f"{mask_prefix(prefix)}.{kind}").unlink(missing_ok=True)
