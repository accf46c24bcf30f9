from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.overlap import WINDOW, document_hashes, shared_documents

random = np.random.default_rng(0)
DOCUMENTS = [random.integers(0, 2000, length) for length in (200, 64, 500, WINDOW, 33, 900)]


def write(prefix: Path, documents: list[np.ndarray], vocab_size: int = 2048) -> IndexedTokens:
    with IndexedWriter(prefix, token_dtype(vocab_size)) as writer:
        for document in documents:
            writer.add_document(document)
    return IndexedTokens(prefix)


def count_shared(first: Sequence[IndexedTokens], second: Sequence[IndexedTokens]) -> int:
    return shared_documents(document_hashes(first), document_hashes(second))


@pytest.mark.parametrize("shared", [[], [0], [3], [0, 3, 4, 5], [1, 1]])
def test_shared_documents_are_counted(tmp_path: Path, shared: list[int]) -> None:
    others = [random.integers(0, 2000, 100) for _ in range(20)]
    first = write(tmp_path / "first", DOCUMENTS)
    second = write(tmp_path / "second", [*others, *(DOCUMENTS[each] for each in shared)])
    assert count_shared([first], [second]) == len(shared)


def test_any_file_of_either_side_counts(tmp_path: Path) -> None:
    first = [write(tmp_path / f"f{n}", [document]) for n, document in enumerate(DOCUMENTS)]
    # The same tokens in another type on disk are the same document.
    second = [write(tmp_path / f"s{n}", [DOCUMENTS[n]], 100_000) for n in (2, 5)]
    assert count_shared(first, second) == 2


def test_what_differs_is_not_shared(tmp_path: Path) -> None:
    """Another length, another first token, another last token, another order of the tokens."""
    whole = DOCUMENTS[0]
    changed = [whole[:-1], whole[1:], np.append(whole, 1), whole[::-1], whole.copy(), whole.copy()]
    changed[4][0] += 1
    changed[5][-1] += 1
    files = write(tmp_path / "a", [whole]), write(tmp_path / "b", changed)
    assert count_shared([files[0]], [files[1]]) == 0


def test_a_common_beginning_and_end_are_not_enough(tmp_path: Path) -> None:
    """Generated files share a header and a footer."""
    header, footer = DOCUMENTS[0][:40], DOCUMENTS[2][:40]
    bodies = random.integers(0, 2000, (2, 60))
    files = [
        write(tmp_path / name, [np.concatenate((header, body, footer))])
        for name, body in zip("ab", bodies, strict=True)
    ]
    assert shared_documents([files[0]], [files[1]]) == 0


def test_short_documents_and_empty_files_are_left_out(tmp_path: Path) -> None:
    short = write(tmp_path / "short", [np.arange(WINDOW - 1), np.arange(0)])
    empty = write(tmp_path / "empty", [])
    assert count_shared([short, empty], [short, empty]) == 0
