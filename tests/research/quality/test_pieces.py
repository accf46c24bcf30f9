from __future__ import annotations

import random
from pathlib import Path

import orjson
import pytest

from data_tools.prepare import prepare
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.errors import UserError
from research.quality import pieces
from research.quality.pieces import cut, cut_family

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def test_parts_are_contiguous_by_name_equal_and_whole() -> None:
    dice = random.Random(1)
    documents = [(f"{number:03}", "x" * dice.randint(1, 400)) for number in range(200)]
    total = sum(len(text) for _, text in documents)
    dice.shuffle(documents)
    parts = cut(documents, 6)
    assert [document for part in parts for document in part] == sorted(documents)
    sizes = [sum(len(text) for _, text in part) for part in parts]
    assert all(abs(size - total / 6) <= 400 for size in sizes)


def test_pieces_of_a_family_hold_its_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, output = tmp_path / "family", tmp_path / "many"
    with pytest.raises(UserError, match="not prepared"):
        cut_family(family, output)
    dice = random.Random(2)
    for name, count in (("large", 60), ("small", 6)):
        (tmp_path / name).mkdir()
        for number in range(count):
            text = " ".join("".join(dice.sample(LETTERS, 5)) for _ in range(60))
            (tmp_path / name / f"{number:02}.txt").write_text(text)
    config = tmp_path / "corpora.yaml"
    config.write_text(
        "vocab_size: 300\nsources:\n"
        + "".join(
            f"  - {{name: {name}, kind: files, root: {name}, patterns: ['*.txt']}}\n"
            for name in ("large", "small")
        )
    )
    prepare(config, family)
    monkeypatch.setattr(pieces, "LEAST", 10_000)
    made = dict(cut_family(family, output))
    assert list(made) == [*(f"large_{number}" for number in range(1, 7)), "small"]

    def texts(path: Path) -> list[str]:
        return [orjson.loads(line)["text"] for line in path.read_bytes().splitlines()]

    cut_texts = [
        text
        for number in range(1, 7)
        for text in texts(output / f"text/sources/large_{number}.jsonl")
    ]
    assert sorted(cut_texts) == sorted(texts(family / "text/sources/large.jsonl"))
    for name in ("large", "small"):
        tokens = sum(count for piece, count in made.items() if piece.startswith(name))
        assert tokens == IndexedTokens(family / "sources" / name).num_tokens
