"""Find damage in token files: sizes, types, pointers, boundaries; with --deep every token.

A loss mask is looked at together with its tokens: the same lengths, and nothing but 0 and 1.

    python -m data_tools.verify data/web data/code --deep

The index is read whole and compared with the checksum of the manifest. --deep also reads the
tokens: their range against the vocabulary, and their checksum. Without a manifest there is no
checksum, and without --vocab-size only negative tokens are found; both is said. Exit code 2 if
anything is wrong; every problem names its file and byte offset.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_tools.commands import run_command, tool_parser
from fastmix_mega.data.indexed_format import HEADER
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.errors import UserError

BLOCK = 1 << 20
"""Numbers looked at together."""


def problems(prefix: str, deep: bool, vocab_size: int | None = None) -> Iterator[str]:
    """Everything that is wrong with one prefix.

    Args:
        prefix: without .bin/.idx.
        deep: read the tokens too.
        vocab_size: tokens must be below it; by default the manifest's. Where there is neither,
            only negative tokens are found.
    """
    try:
        file = IndexedTokens(prefix)
    except UserError as error:
        yield str(error)
        return
    found = list(_index(file))
    yield from found
    if not deep or found:
        return
    manifest = file.manifest
    limit = _limit(file, vocab_size)
    outside = tokens_outside(file, limit)
    if outside is not None:
        yield outside
    if manifest is not None and file_sha256(file.bin_path) != manifest.bin_sha256:
        yield wrong_checksum(file.bin_path, prefix)
    if file.mask is not None:
        yield from _mask_values(file.mask)
        record = manifest.mask if manifest is not None else None
        if record is not None and file_sha256(file.mask.bin_path) != record.bin_sha256:
            yield wrong_checksum(file.mask.bin_path, prefix)


def _limit(file: IndexedTokens, vocab_size: int | None) -> int | None:
    return vocab_size or (file.manifest.vocab_size if file.manifest else None)


def require_sound_index(file: IndexedTokens) -> None:
    """For tools that rely on it; UserError says what is wrong with the index, and where."""
    for problem in _index(file):
        raise UserError(f"{problem}; preprocess the data again")


def wrong_checksum(path: Path, prefix: str | Path) -> str:
    return f"{path} has another checksum than the manifest of {prefix} says; preprocess it again"


def _index(file: IndexedTokens) -> Iterator[str]:
    count, width = file.num_sequences, file.dtype.itemsize
    lengths, offsets = file.lengths, file.offsets
    end = 0
    for start in range(0, count, BLOCK):
        part = lengths[start : start + BLOCK].astype(np.int64)
        if (part < 0).any():
            row = start + int(np.argmax(part < 0))
            yield f"{file.idx_path}: a negative length at offset {HEADER.size + 4 * row}"
            return
        ends = end + np.cumsum(part) * width
        starts = ends - part * width
        wrong = offsets[start : start + BLOCK] != starts
        if wrong.any():
            row = start + int(np.argmax(wrong))
            yield (
                f"{file.idx_path}: the pointer at offset {HEADER.size + 4 * count + 8 * row} is "
                f"{int(offsets[row])}, not {int(starts[row - start])}"
            )
            return
        end = int(ends[-1])
    found = list(_boundaries(file))
    yield from found
    if (
        not found
        and file.manifest is not None
        and file_sha256(file.idx_path) != file.manifest.idx_sha256
    ):
        yield wrong_checksum(file.idx_path, file.prefix)
    if not found and file.mask is not None:
        yield from _mask_index(file, file.mask)


def _mask_index(file: IndexedTokens, mask: IndexedTokens) -> Iterator[str]:
    for start in range(0, file.num_sequences, BLOCK):
        wrong = file.lengths[start : start + BLOCK] != mask.lengths[start : start + BLOCK]
        if wrong.any():
            row = start + int(np.argmax(wrong))
            yield (
                f"{mask.idx_path}: sequence {row} has {int(mask.lengths[row])} tokens, but "
                f"{int(file.lengths[row])} in {file.idx_path} (offset {HEADER.size + 4 * row})"
            )
            return
    found = list(_index(mask))
    yield from found
    record = file.manifest.mask if file.manifest is not None else None
    if not found and record is not None and file_sha256(mask.idx_path) != record.idx_sha256:
        yield wrong_checksum(mask.idx_path, file.prefix)


def _mask_values(mask: IndexedTokens) -> Iterator[str]:
    for start in range(0, mask.num_tokens, BLOCK):
        part = mask.tokens[start : start + BLOCK]
        if part.max() > 1:
            row = start + int(np.argmax(part > 1))
            yield f"{mask.bin_path}: {int(mask.tokens[row])} at offset {row}; a mask is 0 or 1"
            return


def _boundaries(file: IndexedTokens) -> Iterator[str]:
    position, boundaries = HEADER.size + 12 * file.num_sequences, file.boundaries
    previous = 0
    for start in range(0, len(boundaries), BLOCK):
        part = np.concatenate(([previous], boundaries[start : start + BLOCK]))
        steps = np.diff(part)
        if (steps < 0).any() or (start == 0 and part[1] != 0):
            row = start + (int(np.argmax(steps < 0)) if (steps < 0).any() else 0)
            yield f"{file.idx_path}: a wrong document boundary at offset {position + 8 * row}"
            return
        previous = int(part[-1])
    if previous != file.num_sequences:
        yield (
            f"{file.idx_path}: the documents end at sequence {previous}, but there are "
            f"{file.num_sequences} (offset {position + 8 * file.num_documents})"
        )


def tokens_outside(file: IndexedTokens, limit: int | None) -> str | None:
    """What is wrong with the first token that is negative or not below `limit`, if one is."""
    for start in range(0, file.num_tokens, BLOCK):
        part = file.tokens[start : start + BLOCK]
        wrong = (part < 0) if limit is None else (part < 0) | (part >= limit)
        if wrong.any():
            row = start + int(np.argmax(wrong))
            outside = "negative" if limit is None else f"outside the vocabulary of {limit}"
            return (
                f"{file.bin_path}: token {int(file.tokens[row])} at offset "
                f"{row * file.dtype.itemsize} is {outside}"
            )
    return None


def file_sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unchecked(prefix: str, options: argparse.Namespace) -> str:
    """What was not looked at."""
    if not options.deep:
        return " in the index"
    file = IndexedTokens(prefix)
    missing = []
    if _limit(file, options.vocab_size) is None:
        missing.append("no token is negative, but the vocabulary is unknown: give --vocab-size")
    if file.manifest is None:
        missing.append("without a manifest there are no checksums")
    return f"; {'; '.join(missing)}" if missing else ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("verify", __doc__ or "")
    parser.add_argument("prefixes", nargs="+", help="token files without .bin/.idx")
    parser.add_argument("--deep", action="store_true", help="read every token too")
    parser.add_argument("--vocab-size", type=int, help="if the manifest is missing")

    def work(options: argparse.Namespace) -> None:
        if options.vocab_size is not None and options.vocab_size < 1:
            raise UserError("--vocab-size must be at least 1")
        found: list[str] = []
        for prefix in options.prefixes:
            wrong = list(problems(prefix, options.deep, options.vocab_size))
            found += wrong
            if not wrong:
                print(f"{prefix}: no damage found{_unchecked(prefix, options)}")
        if found:
            raise UserError("\n".join(found))

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
