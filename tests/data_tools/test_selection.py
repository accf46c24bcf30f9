"""A share of the documents, or as many as a number of tokens holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest

from data_tools import inputs, selection
from fastmix_mega.data.indexed_reader import IndexedTokens
from tests.data_tools.conftest import Tokenize

Texts = Callable[..., list[str]]
ALL = [f"document {n} " + "word " * (n % 7) for n in range(300)]


def draw(text: str, seed: int = 0) -> int:
    """As the module says it: a keyed BLAKE2b of the content."""
    key = seed.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest(), "little")


def write(name: str, texts: list[str]) -> None:
    Path(name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_a_sample_depends_on_content_and_seed_alone(
    tokenize: Tokenize, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.jsonl", ALL)
    wanted = [text for text in ALL if draw(text, 3) < 0.3 * 2**64]
    assert 60 < len(wanted) < 120
    assert tokenize("a.jsonl", "--sample", "0.3", "--seed", "3", out="one") == 0
    monkeypatch.setattr(inputs, "SMALLEST_RANGE", 300)
    more = ("--workers", "2")
    assert tokenize("a.jsonl", "--sample", "0.3", "--seed", "3", *more, out="two") == 0
    assert texts("one") == texts("two") == wanted
    # More data moves nothing.
    write("b.jsonl", ["before", *ALL])
    assert tokenize("b.jsonl", "--sample", "0.3", "--seed", "3", out="three") == 0
    assert [text for text in texts("three") if text != "before"] == wanted
    assert tokenize("a.jsonl", "--sample", "0.3", "--seed", "4", out="four") == 0
    assert texts("four") != wanted


@pytest.mark.parametrize("bins", [1 << 16, 4])
@pytest.mark.parametrize("limit", [1, 40, 1000, 10**6])
def test_tokens_up_to_a_number(
    tokenize: Tokenize, texts: Texts, monkeypatch: pytest.MonkeyPatch, bins: int, limit: int
) -> None:
    monkeypatch.setattr(inputs, "SMALLEST_RANGE", 300)
    monkeypatch.setattr(selection, "BINS", bins)
    monkeypatch.setattr(selection, "BLOCK", 7)
    doubled = [*ALL, *ALL[:50]]
    write("a.jsonl", doubled)
    assert tokenize("a.jsonl", out="all") == 0
    sizes = dict(zip(doubled, IndexedTokens("all").lengths.tolist(), strict=True))
    taken: set[str] = set()
    total = 0
    for text in sorted(ALL, key=draw):
        total += sizes[text] * doubled.count(text)
        if total > limit:
            break
        taken.add(text)
    code = tokenize("a.jsonl", "--max-tokens", str(limit), "--origins")
    assert code == (0 if taken else 2)
    if taken:
        wanted = [text for text in doubled if text in taken]
        assert texts() == wanted
        rows = pyarrow.parquet.read_table("out.origins.parquet").to_pylist()
        assert [doubled[row["row"] - 1] for row in rows] == wanted
        assert {row["file"] for row in rows} == {"a.jsonl"}


def test_conversations_keep_their_masks(tokenize: Tokenize) -> None:
    rows = [{"prompt": f"p{n}", "completion": "c" * (n + 1)} for n in range(20)]
    Path("c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tokenize("c.jsonl", "--mode", "sft", out="all") == 0
    whole = IndexedTokens("all")
    limit = str(whole.num_tokens // 2)
    assert tokenize("c.jsonl", "--mode", "sft", "--max-tokens", limit) == 0
    some = IndexedTokens("out")
    assert whole.mask is not None
    assert some.mask is not None
    known, start = {}, 0
    for length in whole.lengths:
        place = slice(start, start + int(length))
        known[whole.tokens[place].tobytes()] = whole.mask.tokens[place].tobytes()
        start += int(length)
    assert 0 < some.num_documents < 20
    start = 0
    for length in some.lengths:
        place = slice(start, start + int(length))
        assert known[some.tokens[place].tobytes()] == some.mask.tokens[place].tobytes()
        start += int(length)


@pytest.mark.parametrize(
    "words", [("--sample", "0"), ("--sample", "1.5"), ("--max-tokens", "0"), ("--seed", "-1")]
)
def test_mistakes(tokenize: Tokenize, words: tuple[str, ...]) -> None:
    write("a.jsonl", ALL)
    assert tokenize("a.jsonl", *words) == 2
    assert tokenize("a.jsonl", "--max-tokens", "9", "--task", "1/2") == 2
