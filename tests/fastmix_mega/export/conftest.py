"""A mixture over sources whose rows differ in length, so that tokens, rows and epochs differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.mixture.file import MixtureFile, MixtureSource

ROWS = {"short": (400, 10), "long": (100, 80), "rare": (60, 25)}
"""Rows and the tokens of each."""
SHARES = {"short": 0.5, "long": 0.3, "rare": 0.2}


@pytest.fixture(scope="session")
def row_corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token files and, beside them, JSONL files of the same rows."""
    folder = tmp_path_factory.mktemp("rows")
    manifest = {"tokenizer_sha256": "ab" * 32, "vocab_size": 300, "eod": 2}
    for name, (rows, length) in ROWS.items():
        with IndexedWriter(folder / name, token_dtype(300), manifest) as writer:
            for _ in range(rows):
                writer.add_document(np.append(np.full(length - 1, 7), 2))
        lines = [json.dumps({"source": name, "text": "x " * length}) for _ in range(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def row_mixture(row_corpora: Path, tmp_path: Path) -> Path:
    MixtureFile(
        sources=[
            MixtureSource(
                name=name,
                weight=share,
                prefix=str(row_corpora / name),
                tokens=IndexedTokens(row_corpora / name).num_tokens,
            )
            for name, share in SHARES.items()
        ]
    ).write(tmp_path / "rows.json")
    return tmp_path / "rows.json"


def token_shares(rows: dict[str, float]) -> dict[str, float]:
    """Of rows read, by name."""
    tokens = {name: count * ROWS[name][1] for name, count in rows.items()}
    return {name: count / sum(tokens.values()) for name, count in tokens.items()}
