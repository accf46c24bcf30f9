"""Megatron's indexed token files, `<prefix>.bin` and `<prefix>.idx`, and our `.manifest.json`.

Conversations have a loss mask beside their tokens, `<prefix>.mask.bin` and `.idx`: an indexed
dataset of the same lengths with a 1 for every token that counts in the loss, as uint8.

megatron-core's own `IndexedDataset` reads what is written here, and its builder's files are read
here. Opening takes O(1) time and memory: the header, the sizes and the last entry are read and
checked, so that a truncated or swapped file is an error and never garbage tokens.

The .idx holds: magic, version (uint64), dtype code (uint8), number of sequences and of document
boundaries (uint64 each), lengths (int32), byte offsets (int64), document boundaries (int64).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastmix_mega.data import remote
from fastmix_mega.errors import UserError
from fastmix_mega.files import fsync_directory, write_json
from fastmix_mega.paths import rule_for

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.int8),
    3: np.dtype(np.int16),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    8: np.dtype(np.uint16),
}
"""Megatron's codes of token types; 6 and 7 are floats, which hold no tokens."""
Count = Annotated[int, Field(ge=0)]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 below 65,500 tokens, int32 from there (Megatron's rule)."""
    return np.dtype(np.uint16) if vocab_size < 65500 else np.dtype(np.int32)


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
        return Manifest.model_validate(json.loads(content))
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
            return (old, head + file.read()) if _starts_as_manifest(head) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {old}: {error.strerror}") from None


_HEAD = 4096
"""Bytes by which a manifest is told from other JSON."""


def _starts_as_manifest(head: bytes) -> bool:
    """Whether a file was written as a manifest, even if it was damaged since."""
    return not head.strip() or b'"fastmix-tokens/' in head or b'"bin_sha256"' in head


def _local_files(prefix: str) -> tuple[Path, Path]:
    """.bin and .idx; of a prefix in object storage, their copies on this machine."""
    if not remote.is_remote(prefix):
        return Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
    manifest = read_manifest(prefix)
    if manifest is None:
        raise UserError(
            f"{manifest_path(prefix)} is missing: token files in object storage need the checksums "
            "of their manifest; preprocess them, or merge Megatron's, on a disk and copy all three "
            "files"
        )
    return (
        remote.cached_copy(f"{prefix}.bin", manifest.bin_sha256),
        remote.cached_copy(f"{prefix}.idx", manifest.idx_sha256),
    )


def _missing(prefix: str, path: Path) -> str:
    """What to say of a prefix without its files."""
    stem, end = os.path.splitext(prefix)
    if end in (".bin", ".idx") and os.path.isfile(f"{stem}.bin"):
        return f"{path} is missing; give the prefix without {end}: {stem}"
    return f"{path} is missing; make it with fastmix data preprocess{rule_for(prefix)}"


class IndexedTokens:
    """One prefix, opened for reading.

    Attributes:
        prefix: without .bin/.idx; a URL is copied first (`fastmix_mega.data.remote`).
        dtype: of the stored tokens.
        num_tokens, num_documents: of the whole file.
        tokens: [num_tokens] read-only memory map.
        manifest: None where none stands beside the files.
        mask: the loss mask, whose `tokens` are 0 or 1; None where every token counts.

    Raises:
        UserError: naming the file, the offset and what to do.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = str(prefix)
        self.bin_path, self.idx_path = _local_files(self.prefix)
        for path in (self.bin_path, self.idx_path):
            # Unlike Path.is_file: no error where a name is too long or a folder is closed to us.
            if not os.path.isfile(path):
                raise UserError(_missing(self.prefix, path))
            if not os.access(path, os.R_OK):
                raise UserError(f"{path} cannot be read: permission denied")
        bin_size, idx_size = self.bin_path.stat().st_size, self.idx_path.stat().st_size
        with self.idx_path.open("rb") as file:
            header = file.read(HEADER.size)
            if len(header) < HEADER.size or not header.startswith(MAGIC):
                raise self._broken("it does not start like a Megatron index (offset 0)")
            _, version, code, sequences, boundaries = HEADER.unpack(header)
            if version != 1:
                raise self._broken(f"it has version {version} (offset 9); only 1 is known")
            if code not in DTYPES:
                raise self._broken(f"{code} is no type of tokens (offset 17)")
            self.dtype = DTYPES[code]
            expected = HEADER.size + 12 * sequences + 8 * boundaries
            if expected != idx_size:
                hint = (
                    "; multimodal files are not supported"
                    if idx_size == expected + sequences
                    else "; it was truncated or is another file's"
                )
                raise self._broken(
                    f"{sequences} sequences and {boundaries} boundaries need {expected} bytes, it "
                    f"has {idx_size}{hint}"
                )
            end = 0
            if sequences:
                file.seek(HEADER.size + 4 * (sequences - 1))
                (length,) = struct.unpack("<i", file.read(4))
                file.seek(HEADER.size + 12 * sequences - 8)
                (offset,) = struct.unpack("<q", file.read(8))
                end = offset + length * self.dtype.itemsize
                if length < 0 or offset < 0:
                    raise self._broken("its last entry is negative")
            if boundaries == 0:
                raise self._broken("it has no document boundaries")
        if end != bin_size:
            raise UserError(
                f"{self.bin_path} has {bin_size} bytes, but {self.idx_path} ends at byte {end}: "
                "one of them was truncated or belongs to other data; preprocess it again"
            )
        if bin_size % self.dtype.itemsize:
            raise self._broken(f"{bin_size} bytes are no whole number of {self.dtype.name} tokens")
        self.num_sequences = int(sequences)
        self.num_documents = int(boundaries) - 1
        self.num_tokens = bin_size // self.dtype.itemsize
        self.manifest = read_manifest(self.prefix)
        self._match_manifest()
        self.tokens: NDArray[Any] = (
            np.memmap(self.bin_path, self.dtype, "r")
            if self.num_tokens
            else np.empty(0, self.dtype)
        )
        self.mask: IndexedTokens | None = self._open_mask()

    @property
    def lengths(self) -> NDArray[np.int32]:
        """[num_sequences] tokens of each sequence, a memory map."""
        if not self.num_sequences:
            return np.empty(0, np.int32)
        return np.memmap(self.idx_path, np.int32, "r", HEADER.size, (self.num_sequences,))

    @property
    def offsets(self) -> NDArray[np.int64]:
        """[num_sequences] byte at which each sequence starts, a memory map."""
        if not self.num_sequences:
            return np.empty(0, np.int64)
        start = HEADER.size + 4 * self.num_sequences
        return np.memmap(self.idx_path, np.int64, "r", start, (self.num_sequences,))

    @property
    def boundaries(self) -> NDArray[np.int64]:
        """[num_documents + 1] sequences before each document and in all, a memory map."""
        start = HEADER.size + 12 * self.num_sequences
        return np.memmap(self.idx_path, np.int64, "r", start, (self.num_documents + 1,))

    def _broken(self, reason: str) -> UserError:
        return UserError(f"{self.idx_path} is broken: {reason}; preprocess the data again")

    def _match_manifest(self) -> None:
        manifest = self.manifest
        if manifest is None:
            return
        for what, said, found in (
            ("tokens", manifest.tokens, self.num_tokens),
            ("documents", manifest.documents, self.num_documents),
            ("dtype", manifest.dtype, self.dtype.name),
        ):
            if said != found:
                raise UserError(
                    f"the manifest of {self.prefix} says {what} = {said}, but {self.idx_path} has "
                    f"{found}: the files do not belong together; preprocess the data again"
                )

    def _open_mask(self) -> IndexedTokens | None:
        prefix = mask_prefix(self.prefix)
        stray = next((p for p in (f"{prefix}.idx", f"{prefix}.bin") if os.path.isfile(p)), None)
        if self.manifest is not None and self.manifest.mask is None and stray is not None:
            raise UserError(
                f"the manifest of {self.prefix} knows of no loss mask, but {stray} is there: the "
                "files do not belong together; preprocess the data again"
            )
        if stray is None and (self.manifest is None or self.manifest.mask is None):
            return None
        mask = IndexedTokens(prefix)
        for what, ours, theirs in (
            ("dtype", "uint8", mask.dtype.name),
            ("sequences", self.num_sequences, mask.num_sequences),
            ("documents", self.num_documents, mask.num_documents),
            ("tokens", self.num_tokens, mask.num_tokens),
        ):
            if ours != theirs:
                raise UserError(
                    f"{mask.idx_path} is no loss mask of {self.idx_path}: its {what} should be "
                    f"{ours}, not {theirs}; preprocess the data again"
                )
        return mask


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


class _WrittenPair:
    """One .bin/.idx pair under names of its own until it is whole."""

    def __init__(self, prefix: str, dtype: np.dtype[Any]) -> None:
        self.prefix, self.dtype = prefix, dtype
        self.lengths: list[int] = []
        self.index_sha256 = ""
        self._digest = hashlib.sha256()
        self._partial = {kind: Path(f"{prefix}.{kind}.partial") for kind in ("bin", "idx")}
        self._bin: BinaryIO = self._partial["bin"].open("wb")

    @property
    def bin_sha256(self) -> str:
        return self._digest.hexdigest()

    def add(self, tokens: Sequence[int] | NDArray[np.integer]) -> None:
        values, limits = np.asarray(tokens), np.iinfo(self.dtype)
        if values.size and not limits.min <= values.min() <= values.max() <= limits.max:
            raise OverflowError(f"{self.prefix}: a token does not fit into {self.dtype.name}")
        content = values.astype(self.dtype).tobytes()
        self._bin.write(content)
        self._digest.update(content)
        self.lengths.append(len(content) // self.dtype.itemsize)

    def sync(self) -> None:
        index = encode_index(np.array(self.lengths, np.int32), self.dtype)
        self.index_sha256 = hashlib.sha256(index).hexdigest()
        with self._partial["idx"].open("wb") as file:
            file.write(index)
            for written in (file, self._bin):
                written.flush()
                os.fsync(written.fileno())

    def give_names(self) -> None:
        for kind, path in self._partial.items():
            os.replace(path, f"{self.prefix}.{kind}")

    def clean_up(self) -> None:
        self._bin.close()
        for path in self._partial.values():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


class IndexedWriter:
    """Writes one prefix; a context manager whose files appear whole, the manifest last, or not.

    Args:
        prefix: without .bin/.idx.
        dtype: of the tokens on disk, from `token_dtype`.
        manifest: further fields of the manifest (tokenizer_sha256, vocab_size, eod, made_by).
        masked: whether every document comes with a loss mask.
        template: of the conversations, for the manifest.
    """

    def __init__(
        self,
        prefix: str | Path,
        dtype: np.dtype[Any],
        manifest: dict[str, Any] | None = None,
        masked: bool = False,
        template: str | None = None,
    ) -> None:
        assert dtype in DTYPES.values()
        self.prefix = str(prefix)
        self._extra = manifest or {}
        self._template = template
        self._answers = 0
        Path(prefix).parent.mkdir(parents=True, exist_ok=True)
        self._tokens = _WrittenPair(self.prefix, dtype)
        self._mask = _WrittenPair(mask_prefix(prefix), np.dtype(np.uint8)) if masked else None

    def __enter__(self) -> IndexedWriter:
        return self

    def add_document(
        self,
        tokens: Sequence[int] | NDArray[np.integer],
        mask: Sequence[int] | NDArray[np.integer] | None = None,
    ) -> None:
        """Append one document (with its end-of-document token, where it has one).

        Args:
            tokens: of the document.
            mask: 1 for every token that counts in the loss, 0 for the others.

        Raises:
            OverflowError: if a token does not fit the type on disk, where it would wrap around.
        """
        assert (mask is not None) == (self._mask is not None)
        self._tokens.add(tokens)
        if self._mask is not None and mask is not None:
            assert len(mask) == len(tokens)
            self._mask.add(mask)
            self._answers += int(np.sum(mask))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pairs = [pair for pair in (self._tokens, self._mask) if pair is not None]
        try:
            if kind is None:
                self._finish(pairs)
        finally:
            for pair in pairs:
                pair.clean_up()

    def _finish(self, pairs: Sequence[_WrittenPair]) -> None:
        for pair in pairs:
            pair.sync()
        forget_manifest(self.prefix, masked=self._mask is not None)
        for pair in pairs:
            pair.give_names()
        fsync_directory(Path(self.prefix).parent)
        mask = None
        if self._mask is not None:
            mask = MaskRecord(
                answers=self._answers,
                template=self._template,
                bin_sha256=self._mask.bin_sha256,
                idx_sha256=self._mask.index_sha256,
            )
        Manifest(
            documents=len(self._tokens.lengths),
            tokens=sum(self._tokens.lengths),
            dtype=self._tokens.dtype.name,
            bin_sha256=self._tokens.bin_sha256,
            idx_sha256=self._tokens.index_sha256,
            mask=mask,
            **self._extra,
        ).write(self.prefix)


def encode_index(lengths: NDArray[np.int32], dtype: np.dtype[Any]) -> bytes:
    """The .idx of documents of one sequence each."""
    code = next(code for code, known in DTYPES.items() if known == dtype)
    offsets = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], out=offsets[1:], dtype=np.int64)
    boundaries = np.arange(len(lengths) + 1, dtype=np.int64)
    header = HEADER.pack(MAGIC, 1, code, len(lengths), len(boundaries))
    return b"".join(
        (header, lengths.tobytes(), (offsets * dtype.itemsize).tobytes(), boundaries.tobytes())
    )
