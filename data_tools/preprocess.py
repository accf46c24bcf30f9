"""Turn JSONL into one of Megatron's indexed token files, with a manifest beside it.

    python -m data_tools.preprocess corpus.jsonl --tokenizer tokenizer.model --output-prefix out/web

writes out/web.bin, out/web.idx (megatron-core reads them) and out/web.json: documents, tokens,
tokenizer and checksums. The end-of-document token follows every document. Lines that are not JSON
objects with a text go to out/web.bad.jsonl with file, line and reason, and more than --max-bad of
them end the run; none is dropped in silence. The files appear whole or not at all.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from data_tools.commands import run_command, tool_parser
from fastmix_mega import __version__
from fastmix_mega.data.indexed import IndexedWriter, token_dtype
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_atomic

BATCH = 256
"""Lines per batch: enough to keep the tokenizer's library busy, little enough for flat memory."""

Line = tuple[str, int, bytes]
"""File, line number from 1, content."""
BadLine = dict[str, Any]


def preprocess(
    files: Sequence[Path],
    tokenizer_path: Path,
    output_prefix: Path,
    text_key: str = "text",
    workers: int = 1,
    max_bad: int = 0,
) -> tuple[int, int]:
    """Tokenize `files` in order into one prefix.

    Args:
        files: JSONL.
        tokenizer_path: a sentencepiece model.
        output_prefix: without .bin/.idx.
        text_key: the field that holds the text.
        workers: processes that tokenize; the result does not depend on it.
        max_bad: bad lines to tolerate.

    Returns:
        Documents and tokens written.

    Raises:
        UserError: for a missing file, a broken tokenizer, or too many bad lines.
    """
    tokenizer = Tokenizer(tokenizer_path)
    dtype = token_dtype(tokenizer.vocab_size)
    manifest = {
        "tokenizer_sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "eod": tokenizer.eod,
        "made_by": {
            "program": f"fastmix-mega {__version__}",
            "inputs": [path.name for path in files],
            "text_key": text_key,
        },
    }
    bad: list[BadLine] = []
    documents = tokens = 0
    encode = partial(_encode, tokenizer_path=str(tokenizer_path), text_key=text_key, dtype=dtype)
    with ExitStack() as stack:
        writer = stack.enter_context(IndexedWriter(output_prefix, dtype, manifest))
        batches = _batches(_lines(files))
        if workers > 1:
            # A fresh interpreter per worker: no threads or locks are inherited half-way.
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers))
            encoded: Iterable[Any] = pool.imap(encode, batches)
        else:
            encoded = map(encode, batches)
        for arrays, bad_lines in encoded:
            bad.extend(bad_lines)
            if len(bad) > max_bad:
                worst = bad[max_bad]
                raise UserError(
                    f"{worst['file']}:{worst['line']}: {worst['reason']} ({len(bad)} bad line(s) "
                    f"so far, --max-bad is {max_bad}); mend it or raise --max-bad"
                )
            for array in arrays:
                writer.add_document(array)
                documents += 1
                tokens += len(array)
    bad_path = Path(f"{output_prefix}.bad.jsonl")
    if bad:
        write_atomic(bad_path, b"".join(orjson.dumps(line) + b"\n" for line in bad))
    else:
        bad_path.unlink(missing_ok=True)
    return documents, tokens


def _lines(files: Sequence[Path]) -> Iterator[Line]:
    for path in files:
        try:
            with path.open("rb") as file:
                for number, content in enumerate(file, 1):
                    yield str(path), number, content
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None


def _batches(lines: Iterator[Line]) -> Iterator[list[Line]]:
    while batch := list(islice(lines, BATCH)):
        yield batch


_TOKENIZERS: dict[str, Tokenizer] = {}
"""One per worker process: loading a model takes longer than encoding a batch."""


def _encode(
    batch: list[Line], tokenizer_path: str, text_key: str, dtype: np.dtype[Any]
) -> tuple[list[NDArray[Any]], list[BadLine]]:
    if tokenizer_path not in _TOKENIZERS:
        _TOKENIZERS[tokenizer_path] = Tokenizer(tokenizer_path)
    tokenizer = _TOKENIZERS[tokenizer_path]
    texts: list[str] = []
    bad: list[BadLine] = []
    for file, number, content in batch:
        text = _text_of(content, text_key)
        if isinstance(text, UserError):
            bad.append({"file": file, "line": number, "reason": str(text)})
        else:
            texts.append(text)
    end = np.array([tokenizer.eod], dtype)
    arrays = [np.concatenate((ids.astype(dtype), end)) for ids in tokenizer.encode(texts)]
    return arrays, bad


def _text_of(content: bytes, text_key: str) -> str | UserError:
    try:
        row = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        return UserError(f"not JSON ({error})")
    if not isinstance(row, dict) or text_key not in row:
        return UserError(f"not an object with the key {text_key!r}")
    text = row[text_key]
    if not isinstance(text, str):
        return UserError(f"{text_key!r} is not a string")
    return text if text else UserError("the text is empty")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser("preprocess", __doc__ or "")
    parser.add_argument("files", type=Path, nargs="+", help="JSONL files, read in this order")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a sentencepiece .model")
    parser.add_argument("--output-prefix", type=Path, required=True, help="without .bin/.idx")
    parser.add_argument("--text-key", default="text", help="field that holds the text")
    parser.add_argument("--workers", type=int, default=1, help="processes that tokenize")
    parser.add_argument("--max-bad", type=int, default=0, help="bad lines to tolerate")

    def work(options: argparse.Namespace) -> None:
        documents, tokens = preprocess(
            options.files,
            options.tokenizer,
            options.output_prefix,
            options.text_key,
            options.workers,
            options.max_bad,
        )
        print(f"{options.output_prefix}: {documents:,} documents, {tokens:,} tokens")

    return run_command(parser, work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
