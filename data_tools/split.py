"""Split a token file into train, valid and test by a hash of each document.

    python -m data_tools.split data/web --valid 0.01 --test 0.01 --output-prefix out/web

writes out/web_train, out/web_valid and out/web_test. A document's side depends on its tokens and
the seed alone: adding data moves nothing, and equal documents stay together.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.commands import run_command, tool_parser
from data_tools.outputs import claim, describe_file, prefix_inputs, recipe_of, token_output
from data_tools.verify import require_sound_index, wrong_checksum
from fastmix_mega import __version__
from fastmix_mega.data.choice_source import require_no_questions
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.errors import UserError

SIDES = ("train", "valid", "test")


@dataclass(frozen=True)
class Shares:
    """How documents are dealt out."""

    valid: float = 0.01
    test: float = 0.01
    seed: int = 0
    """Another one gives other parts."""

    def side_of(self, content: bytes) -> str:
        """train, valid or test."""
        key = self.seed.to_bytes(8, "little")
        digest = hashlib.blake2b(content, digest_size=8, key=key).digest()
        place = int.from_bytes(digest, "little") / 2**64
        if place < self.test:
            return "test"
        # From the other end: changing one share moves no document between the two.
        return "valid" if place >= 1 - self.valid else "train"


def split(
    prefix: str,
    output_prefix: Path,
    valid: float,
    test: float,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, tuple[int, int]]:
    """Write the three parts; returns documents and tokens of each.

    Args:
        prefix: without .bin/.idx; every sequence must be a document.
        output_prefix: gets _train, _valid and _test.
        valid, test: shares of the documents.
        seed: another one gives other parts.
        overwrite: replace finished files of another origin.
    """
    shares = Shares(valid, test, seed)
    if not (shares.valid >= 0 and shares.test >= 0 and shares.valid + shares.test < 1):
        raise UserError("--valid and --test are shares from 0 on, together below 1")
    if not 0 <= shares.seed < 1 << 64:
        raise UserError("--seed must be from 0 to 2^64 - 1")
    file = IndexedTokens(prefix)
    require_sound_index(file)
    require_no_questions(file)
    if file.num_sequences != file.num_documents or (np.diff(file.boundaries) != 1).any():
        raise UserError(f"{prefix} has documents of several sequences, which cannot be split here")
    known = describe_file(file.bin_path) if file.manifest is None else file.manifest.content_sha256
    recipe = recipe_of(tool="split", of=known, shares=asdict(shares))
    outputs = {side: Path(f"{output_prefix}_{side}") for side in SIDES}
    claims = [token_output(path, recipe) for path in outputs.values()]
    with claim(claims, [*prefix_inputs(prefix), file.bin_path], overwrite):
        made_by = {
            "program": f"fastmix-mega {__version__}",
            "recipe": recipe,
            "split_from": str(prefix),
        }
        return _deal_out(file, outputs, shares, made_by)


def _deal_out(
    file: IndexedTokens, outputs: dict[str, Path], shares: Shares, made_by: dict[str, Any]
) -> dict[str, tuple[int, int]]:
    manifest = {"made_by": made_by}
    if file.manifest is not None:
        manifest |= file.manifest.vocabulary
    record = None if file.manifest is None else file.manifest.mask
    masked, template = file.mask is not None, None if record is None else record.template
    counts = dict.fromkeys(outputs, (0, 0))
    with ExitStack() as stack:
        writers = {
            side: stack.enter_context(IndexedWriter(path, file.dtype, manifest, masked, template))
            for side, path in outputs.items()
        }
        position, digest, mask_digest = 0, hashlib.sha256(), hashlib.sha256()
        for length in file.lengths:
            place = slice(position, position + int(length))
            tokens = file.tokens[place]
            mask = None if file.mask is None else file.mask.tokens[place]
            position += int(length)
            content = tokens.tobytes()
            digest.update(content)
            if mask is not None:
                mask_digest.update(mask.tobytes())
            side = shares.side_of(content)
            writers[side].add_document(tokens, mask)
            documents, total = counts[side]
            counts[side] = (documents + 1, total + int(length))
        # Nothing has its name yet: damaged tokens must not get a manifest that calls them whole.
        if file.manifest is not None and digest.hexdigest() != file.manifest.bin_sha256:
            raise UserError(wrong_checksum(file.bin_path, file.prefix))
        damaged = record is not None and mask_digest.hexdigest() != record.bin_sha256
        if file.mask is not None and damaged:
            raise UserError(wrong_checksum(file.mask.bin_path, file.prefix))
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("split", __doc__ or "")
    parser.add_argument("prefix", help="a token file without .bin/.idx")
    parser.add_argument(
        "--output-prefix", type=Path, required=True, help="gets _train, _valid and _test"
    )
    parser.add_argument("--valid", type=float, default=0.01, help="share of the documents")
    parser.add_argument("--test", type=float, default=0.01, help="share of the documents")
    parser.add_argument("--seed", type=int, default=0, help="another one gives other parts")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace finished files of another origin"
    )

    def work(options: argparse.Namespace) -> None:
        counts = split(
            options.prefix,
            options.output_prefix,
            options.valid,
            options.test,
            options.seed,
            options.overwrite,
        )
        for name, (documents, tokens) in counts.items():
            print(f"{options.output_prefix}_{name}: {documents:,} documents, {tokens:,} tokens")

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
