"""Join several token files into one, in the order given, in constant memory.

    python -m data_tools.merge out/web.1 out/web.2 --output-prefix out/web

The shares of an array job (`preprocess --task K/N`), joined in order, are byte for byte what one
job would have written. Tokens are copied as they are; all files must be of one tokenizer and dtype,
with the same end-of-document and first tokens.

Megatron's own files have no manifest. --tokenizer says what made them: then they can be joined with
others, once their tokens lie in its vocabulary and its end-of-document token ends every document.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.commands import run_command, tool_parser
from data_tools.joining import Piece, Region, join
from data_tools.origins import join_origins
from data_tools.outputs import (
    claim,
    describe_file,
    identify,
    prefix_inputs,
    recipe_of,
    token_output,
)
from data_tools.verify import file_sha256, require_sound_index, tokens_outside
from fastmix_mega import __version__
from fastmix_mega.data.choice_source import require_no_questions
from fastmix_mega.data.indexed_format import HEADER
from fastmix_mega.data.indexed_manifest import Manifest
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError

LOOKED_AT = 1000
"""Documents whose first token tells whether a file of an earlier version was made with --bos."""


@dataclass(frozen=True)
class MergeOptions:
    """What is allowed, and what is known of files without a manifest."""

    tokenizer: Path | None = None
    """What made the files that have no manifest."""
    allow_copies: bool = False
    """Join files of the same tokens."""
    allow_empty: bool = False
    """Write a file without documents."""
    overwrite: bool = False
    """Replace finished files of another origin."""


def merge(
    prefixes: Sequence[str], output_prefix: Path, options: MergeOptions | None = None
) -> Manifest:
    """Write `output_prefix` from `prefixes`.

    Raises:
        UserError: for a broken file, one given twice, or files that do not belong together.
    """
    options = options or MergeOptions()
    if not prefixes:
        raise UserError("name the token files to join, without .bin/.idx, or give --from LIST")
    files = [IndexedTokens(prefix) for prefix in prefixes]
    _require_once(files)
    for file in files:
        require_no_questions(file)
        _require_same(files[0], file, options)
        _require_same_mask(files[0], file)
    vocabularies = [_vocabulary(file, options) for file in files]
    for file, vocabulary in zip(files, vocabularies, strict=True):
        _require_same_vocabulary((files[0], vocabularies[0]), (file, vocabulary))
        # What is damaged must not get a manifest that calls it whole.
        require_sound_index(file)
    if not options.allow_copies:
        _require_different(files)
    if not options.allow_empty and not any(file.num_documents for file in files):
        raise UserError(f"{', '.join(prefixes[:3])}: no document to join (--allow-empty)")
    vocabulary = dict(vocabularies[0])
    said = [file.manifest.bos for file in files if file.manifest and not _is_silent(file)]
    if said:
        vocabulary["bos"] = said[0]
    elif files[0].manifest is not None:
        del vocabulary["bos"]
    return _join(files, output_prefix, vocabulary, options)


def _is_silent(file: IndexedTokens) -> bool:
    """Whether a manifest is too old to say how documents start."""
    return file.manifest is not None and "bos" not in file.manifest.model_fields_set


def _join(
    files: Sequence[IndexedTokens],
    output_prefix: Path,
    vocabulary: dict[str, Any],
    options: MergeOptions,
) -> Manifest:
    first = files[0].manifest
    mask = None if first is None else first.mask
    known = [
        describe_file(file.bin_path) if file.manifest is None else file.manifest.content_sha256
        for file in files
    ]
    prefixes = [file.prefix for file in files]
    recipe = recipe_of(tool="merge", of=known, prefixes=prefixes, vocabulary=vocabulary)
    made_by = {
        "program": f"fastmix-mega {__version__}",
        "recipe": recipe,
        "merged": len(files),
    }
    read = [name for file in files for name in (*prefix_inputs(file.prefix), str(file.bin_path))]
    tokenizer = [] if options.tokenizer is None else [options.tokenizer]
    with claim([token_output(output_prefix, recipe)], [*read, *tokenizer], options.overwrite):
        join_origins(prefixes, output_prefix)
        return join(
            output_prefix,
            files[0].dtype,
            [_piece(file) for file in files],
            {**vocabulary, "made_by": made_by},
            masked=files[0].mask is not None,
            template=None if mask is None else mask.template,
        )


def _require_once(files: Sequence[IndexedTokens]) -> None:
    seen: set[str] = set()
    for file in files:
        if file.prefix in seen:
            raise UserError(f"{file.prefix} is given twice; its documents would count twice")
        seen.add(file.prefix)
    for later, first in identify(str(file.bin_path) for file in files).items():
        raise UserError(f"{later} and {first} are one file; its documents would count twice")
    paths = [str(file.bin_path.resolve()) for file in files]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice; its documents would count twice")


def _require_different(files: Sequence[IndexedTokens]) -> None:
    """No two files hold the same tokens; of files without a manifest they are read for it."""
    sizes: dict[int, list[IndexedTokens]] = {}
    for file in files:
        if file.num_tokens:
            sizes.setdefault(file.num_tokens, []).append(file)
    for same_size in sizes.values():
        seen: dict[str, IndexedTokens] = {}
        for file in same_size if len(same_size) > 1 else ():
            checksum = file.manifest.bin_sha256 if file.manifest else file_sha256(file.bin_path)
            other = seen.setdefault(checksum, file)
            if other is not file and not _are_shares(other.manifest, file.manifest):
                raise UserError(
                    f"{file.prefix} holds the same tokens as {other.prefix}; its documents would "
                    "count twice (--allow-copies if that is meant)"
                )


def _are_shares(first: Manifest | None, second: Manifest | None) -> bool:
    """Whether two files are shares of one array job, whose text may repeat itself."""
    if first is None or second is None:
        return False
    tasks = [manifest.made_by.get("task") for manifest in (first, second)]
    return all(isinstance(task, list) for task in tasks) and tasks[0] != tasks[1]


def _vocabulary(file: IndexedTokens, options: MergeOptions) -> dict[str, Any]:
    """What the tokens of a file mean, by its manifest or by --tokenizer."""
    if file.manifest is not None:
        return file.manifest.vocabulary
    if options.tokenizer is None:
        return {"tokenizer_sha256": None, "vocab_size": None, "eod": None, "bos": None}
    tokenizer = Tokenizer(options.tokenizer)
    problem = tokens_outside(file, tokenizer.vocab_size)
    if problem is not None:
        raise UserError(f"{problem}; --tokenizer is not what made it")
    ends = file.boundaries[1:][np.diff(file.boundaries) > 0] - 1
    last = (file.offsets[ends] // file.dtype.itemsize) + file.lengths[ends] - 1
    if (file.lengths[ends] == 0).any() or (file.tokens[last] != tokenizer.eod).any():
        raise UserError(
            f"{file.prefix}: not every document ends with {tokenizer.name_of(tokenizer.eod)} "
            f"(token {tokenizer.eod}) of {options.tokenizer}; make it with --append-eod"
        )
    return {
        "tokenizer_sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "eod": tokenizer.eod,
        "bos": tokenizer.bos if _all_start_with(file, tokenizer.bos) else None,
    }


def _all_start_with(file: IndexedTokens, token: int | None) -> bool:
    """Whether the first documents of a file start with a token; False if there are none."""
    starts = file.offsets[file.boundaries[:-1][:LOOKED_AT]] // file.dtype.itemsize
    if token is None or not len(starts) or int(starts[-1]) >= file.num_tokens:
        return False
    return bool((file.tokens[starts] == token).all())


def _require_same(first: IndexedTokens, file: IndexedTokens, options: MergeOptions) -> None:
    if file.dtype != first.dtype:
        raise UserError(f"{file.prefix} holds {file.dtype}, {first.prefix} holds {first.dtype}")
    if (file.manifest is None) != (first.manifest is None) and options.tokenizer is None:
        without, other = (file, first) if file.manifest is None else (first, file)
        raise UserError(
            f"{without.prefix} has no manifest, so that its tokenizer is unknown, and "
            f"{other.prefix} has one; say with --tokenizer what made it"
        )


def _require_same_vocabulary(
    first: tuple[IndexedTokens, dict[str, Any]], second: tuple[IndexedTokens, dict[str, Any]]
) -> None:
    (file, known), (other, found) = first, second
    if known["tokenizer_sha256"] != found["tokenizer_sha256"]:
        raise UserError(
            f"{other.prefix} and {file.prefix} were made with other tokenizers "
            f"({_short(found['tokenizer_sha256'])} and {_short(known['tokenizer_sha256'])}); "
            "preprocess one of them again"
        )
    for name, what in (
        ("vocab_size", "vocabularies of different sizes"),
        ("eod", "different end-of-document tokens"),
        ("bos", "different first tokens (--bos)"),
    ):
        if known[name] != found[name] and not _only_unsaid(name, (file, other)):
            raise UserError(
                f"{other.prefix} and {file.prefix} have {what} ({found[name]} and {known[name]}); "
                "preprocess one of them again"
            )


def _only_unsaid(name: str, files: Sequence[IndexedTokens]) -> bool:
    """Whether one manifest is too old to say how documents start, and they start as the other's."""
    if name != "bos":
        return False
    silent = [f for f in files if _is_silent(f)]
    said = [f.manifest.bos for f in files if f.manifest and f not in silent]
    return len(silent) == 1 and bool(said) and _all_start_with(silent[0], said[0])


def _require_same_mask(first: IndexedTokens, file: IndexedTokens) -> None:
    if (file.mask is None) != (first.mask is None):
        with_mask, without = (first, file) if first.mask is not None else (file, first)
        raise UserError(
            f"{with_mask.prefix} has a loss mask and {without.prefix} has none; conversations and "
            "text cannot be joined"
        )
    known, found = (
        each.mask.template if each is not None and each.mask is not None else None
        for each in (first.manifest, file.manifest)
    )
    if known != found:
        raise UserError(
            f"{file.prefix} and {first.prefix} were written by other chat templates "
            f"({_short(found)} and {_short(known)}); preprocess one of them again"
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
    parser.add_argument("--tokenizer", type=Path, help="what made the files that have no manifest")
    parser.add_argument("--allow-copies", action="store_true", help="join files of the same tokens")
    parser.add_argument("--allow-empty", action="store_true", help="a file without documents")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace finished files of another origin"
    )

    def work(given: argparse.Namespace) -> None:
        prefixes = given.prefixes + (read_list(given.list) if given.list else [])
        options = MergeOptions(
            given.tokenizer, given.allow_copies, given.allow_empty, given.overwrite
        )
        made = merge(prefixes, given.output_prefix, options)
        print(
            f"{given.output_prefix}: {len(prefixes)} files, {made.documents:,} documents, "
            f"{made.tokens:,} tokens"
        )

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
