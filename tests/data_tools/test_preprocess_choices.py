"""Multiple-choice questions as token files, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from data_tools.preprocess_choices import main, preprocess_choices
from fastmix_mega.data.choice_source import choices_of
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError

ROWS = [
    {"question": "Which array is empty?", "choices": ["zeros", "ones", "empty"], "answer": 2},
    {"question": "What adds?", "choices": ["sum", "min", "a long choice"], "answer": "A"},
]


def questions(path: Path, rows: list[object]) -> Path:
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return path


def test_round_trip(corpora: Path, tmp_path: Path) -> None:
    path, tokenizer = questions(tmp_path / "quiz.jsonl", ROWS), corpora / "tokenizer.model"
    prefix = tmp_path / "quiz"
    assert main([str(path), "--tokenizer", str(tokenizer), "--output-prefix", str(prefix)]) == 0
    found = IndexedTokens(prefix)
    assert choices_of(found) == 3
    assert found.mask is not None
    model = Tokenizer(tokenizer)
    ends = np.cumsum(found.lengths)
    answers = []
    for start, end in zip([0, *ends], ends, strict=False):
        ids, mask = found.tokens[start:end], found.mask.tokens[start:end]
        assert ids[-1] == model.eod
        answers.append(model.decode(ids[mask == 1][:-1].tolist()))
    wanted = ["empty", "zeros", "ones", "sum", "min", "a long choice"]
    assert [answer.strip() for answer in answers] == wanted


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "not an object"),
        ({"question": "", "choices": ["a", "b"], "answer": 0}, "'question' is not a text"),
        ({"question": "q", "choices": ["a", 1], "answer": 0}, "not a list of texts"),
        ({"question": "q", "choices": ["a", "a"], "answer": 0}, "two different texts"),
        ({"question": "q", "choices": ["a", "b"], "answer": "C"}, "from 0 to 1"),
        ({"question": "q", "choices": ["a", "b"], "answer": 0}, "has 2 choices and the first"),
    ],
)
def test_mistakes(corpora: Path, tmp_path: Path, row: object, message: str) -> None:
    path = questions(tmp_path / "quiz.jsonl", [ROWS[0], row])
    with pytest.raises(UserError, match=message):
        preprocess_choices([path], corpora / "tokenizer.model", tmp_path / "quiz")
    assert not (tmp_path / "quiz.idx").exists()
