"""Join several token files into one, in the order given, in constant memory.

    python -m data_tools.merge out/web.1 out/web.2 --output-prefix out/web

The shares of an array job (`preprocess --task K/N`), joined in order, are byte for byte what one
job would have written. Tokens are copied as they are; all files must be of one tokenizer and dtype.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.commands import run_command, tool_parser
from data_tools.joining import Piece, Region, join
from data_tools.verify import require_sound_index
from fastmix_mega import __version__
from fastmix_mega.data.choices import require_no_questions
from fastmix_mega.data.indexed import HEADER, IndexedTokens, Manifest
from fastmix_mega.errors import UserError


def merge(prefixes: Sequence[str], output_prefix: Path) -> Manifest:
    """Write `output_prefix` from `prefixes`.

    Raises:
        UserError: for a broken file, one given twice, or files that do not belong together.
    """
    if not prefixes:
        raise UserError("name the token files to join, without .bin/.idx, or give --from LIST")
    resolved = [str(Path(prefix).resolve()) for prefix in prefixes]
    twice = next((prefix for prefix in resolved if resolved.count(prefix) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice; its documents would count twice")
    if str(output_prefix.resolve()) in resolved:
        raise UserError(f"{output_prefix} is one of the inputs; name another output")
    pieces: list[Piece] = []
    dtype: np.dtype[Any] | None = None
    first: Manifest | None = None
    masked = False
    for prefix in prefixes:
        file = IndexedTokens(prefix)
        require_no_questions(file)
        if dtype is None:
            dtype, first = file.dtype, file.manifest
            masked = file.mask is not None
        _require_same(prefixes[0], prefix, dtype, first, file)
        _require_same_mask(prefixes[0], prefix, masked, first, file)
        # What is damaged must not get a manifest that calls it whole.
        require_sound_index(file)
        pieces.append(_piece(file))
    assert dtype is not None
    template = None
    if first is not None and first.mask is not None:
        template = first.mask.template
    manifest: dict[str, Any] = {
        "made_by": {"program": f"fastmix-mega {__version__}", "merged": len(prefixes)}
    }
    if first is not None:
        named = ("tokenizer_sha256", "vocab_size", "eod")
        manifest |= {name: getattr(first, name) for name in named}
    return join(output_prefix, dtype, pieces, manifest, masked=masked, template=template)


def _require_same(
    first_prefix: str,
    prefix: str,
    dtype: np.dtype[Any],
    first: Manifest | None,
    file: IndexedTokens,
) -> None:
    if file.dtype != dtype:
        raise UserError(f"{prefix} holds {file.dtype}, {first_prefix} holds {dtype}")
    known = first.tokenizer_sha256 if first else None
    found = file.manifest.tokenizer_sha256 if file.manifest else None
    if known != found:
        raise UserError(
            f"{prefix} and {first_prefix} were made with other tokenizers ({_short(found)} and "
            f"{_short(known)}); preprocess one of them again"
        )


def _require_same_mask(
    first_prefix: str, prefix: str, masked: bool, first: Manifest | None, file: IndexedTokens
) -> None:
    if (file.mask is not None) != masked:
        with_mask, without = (first_prefix, prefix) if masked else (prefix, first_prefix)
        raise UserError(
            f"{with_mask} has a loss mask and {without} has none; conversations and text cannot be "
            "joined"
        )
    known, found = (
        each.mask.template if each is not None and each.mask is not None else None
        for each in (first, file.manifest)
    )
    if known != found:
        raise UserError(
            f"{prefix} and {first_prefix} were written by other chat templates ({_short(found)} "
            f"and {_short(known)}); preprocess one of them again"
        )


def _short(sha256: str | None) -> str:
    if sha256 is None:
        return "unknown"
    return sha256 if len(sha256) < 12 else f"{sha256[:12]}..."


def _piece(file: IndexedTokens) -> Piece:
    count, boundaries = file.num_sequences, file.num_documents + 1
    record = file.manifest.mask if file.manifest else None
    return Piece(
        Region(file.bin_path, 0, file.num_tokens * file.dtype.itemsize),
        Region(file.idx_path, HEADER.size, 4 * count),
        Region(file.idx_path, HEADER.size + 12 * count, 8 * boundaries),
        file.manifest.bin_sha256 if file.manifest else None,
        None if file.mask is None else Region(file.mask.bin_path, 0, file.num_tokens),
        None if record is None else record.bin_sha256,
    )


def read_list(path: Path) -> list[str]:
    """The lines of a list of prefixes; UserError if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from None
    return [line.strip() for line in lines if line.strip()]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("merge", __doc__ or "")
    parser.add_argument("prefixes", nargs="*", help="token files without .bin/.idx, in order")
    parser.add_argument("--from", dest="list", type=Path, metavar="LIST", help="one prefix a line")
    parser.add_argument("--output-prefix", type=Path, required=True, help="without .bin/.idx")

    def work(options: argparse.Namespace) -> None:
        prefixes = options.prefixes + (read_list(options.list) if options.list else [])
        made = merge(prefixes, options.output_prefix)
        print(
            f"{options.output_prefix}: {len(prefixes)} files, {made.documents:,} documents, "
            f"{made.tokens:,} tokens"
        )

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
