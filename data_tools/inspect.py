"""Show what token files hold: documents, tokens, lengths, and decoded text.

    python -m data_tools.inspect data/web data/code --tokenizer tokenizer.model

prints a table over all files with each one's share of the tokens, a histogram of document lengths,
and, with a tokenizer, the first and the last document of each. Of conversations the answer tokens
are counted, and what counts in the loss stands between « and ».
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_tools.commands import run_command, tool_parser
from data_tools.verify import BLOCK, require_sound_index
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError

SHOWN_TOKENS = 60


def describe(files: Sequence[IndexedTokens], tokenizer: Tokenizer | None) -> Iterator[str]:
    """The lines to print."""
    total = sum(file.num_tokens for file in files) or 1
    names = f"{'documents':>12} {'tokens':>15} {'share':>7} {'median':>8} {'longest':>9}"
    yield f"{names}  dtype   file"
    for file in files:
        lengths = file.lengths
        middle = int(np.median(lengths)) if len(lengths) else 0
        longest = int(lengths.max()) if len(lengths) else 0
        yield (
            f"{file.num_documents:>12,} {file.num_tokens:>15,} {file.num_tokens / total:>7.2%} "
            f"{middle:>8,} {longest:>9,}  {file.dtype.name:7} {file.prefix}"
        )
    for file in files:
        yield ""
        if file.mask is not None:
            answers = _answers(file.mask)
            share = answers / max(1, file.num_tokens)
            yield (
                f"{file.prefix}: {answers:,} answer tokens, {share:.1%} of all, "
                f"{answers / max(1, file.num_documents):.1f} per conversation"
            )
        yield f"{file.prefix}: tokens per document"
        yield from _histogram(file)
        if tokenizer is not None and file.num_sequences:
            yield f"first: {_text(file, 0, tokenizer)}"
            yield f"last:  {_text(file, file.num_sequences - 1, tokenizer)}"


def _answers(mask: IndexedTokens) -> int:
    return sum(
        int(mask.tokens[start : start + BLOCK].sum()) for start in range(0, mask.num_tokens, BLOCK)
    )


def _histogram(file: IndexedTokens) -> Iterator[str]:
    lengths = np.asarray(file.lengths, np.int64)
    if not len(lengths):
        yield "  (empty)"
        return
    powers = np.floor(np.log2(np.maximum(lengths, 1))).astype(int)
    counts = np.bincount(powers)
    for power in range(int(powers.min()), len(counts)):
        bar = "#" * round(50 * counts[power] / counts.max())
        yield f"  {2**power:>9,} - {2 ** (power + 1) - 1:>9,} {counts[power]:>12,} {bar}"


def _text(file: IndexedTokens, number: int, tokenizer: Tokenizer) -> str:
    start = int(file.offsets[number]) // file.dtype.itemsize
    tokens = file.tokens[start : start + min(int(file.lengths[number]), SHOWN_TOKENS)]
    if not 0 <= tokens.min(initial=0) <= tokens.max(initial=0) < tokenizer.vocab_size:
        raise UserError(f"{file.prefix} holds tokens that {tokenizer.path} does not have")
    if file.mask is None:
        return repr(tokenizer.decode(tokens.tolist()))
    mask = file.mask.tokens[start : start + len(tokens)]
    edges = [0, *(np.flatnonzero(np.diff(mask)) + 1), len(tokens)]
    shown = ""
    for begin, end in itertools.pairwise(edges):
        text = tokenizer.decode(tokens[begin:end].tolist())
        shown += f"«{text}»" if end > begin and mask[begin] else text
    return repr(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("inspect", __doc__ or "")
    parser.add_argument("prefixes", nargs="+", help="token files without .bin/.idx")
    parser.add_argument("--tokenizer", type=Path, help="shows text too")

    def work(options: argparse.Namespace) -> None:
        tokenizer = Tokenizer(options.tokenizer) if options.tokenizer else None
        files = [IndexedTokens(prefix) for prefix in options.prefixes]
        for file in files:
            require_sound_index(file)
        print("\n".join(describe(files, tokenizer)))

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
