"""Text that a tokenizer has no tokens for is said, never left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, pre_tokenizers, trainers

from data_tools import preprocess
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.tokenizer import Tokenizer

TEXT = ["it is a word of text and a number"] * 5


def make(folder: Path, change: Callable[[Any], None] = lambda _made: None, **model: Any) -> Path:
    made = Library(models.BPE(**model))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    change(made)
    special = ["</s>", *([model["unk_token"]] if "unk_token" in model else [])]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    byte_level = "ByteLevel" in str(made.pre_tokenizer)
    trainer = trainers.BpeTrainer(
        vocab_size=400 if byte_level else 60,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=alphabet if byte_level else [],
    )
    made.train_from_iterator(TEXT, trainer)
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def byte_level(made: Any) -> None:
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)


def strip_accents(made: Any) -> None:
    made.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])


def run(tokenizer: Path, rows: list[dict[str, Any]], *more: str) -> int:
    folder = tokenizer.parent
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["--tokenizer", str(tokenizer), "--output-prefix", str(folder / "out")]
    return preprocess.main([str(folder / "in.jsonl"), *given, *more])


def test_unknown_text_is_a_bad_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = make(tmp_path)
    rows = [{"text": text} for text in ("日本語", "it is 日本 a word", "it is a word", " ", "a b")]
    assert run(tokenizer, rows) == 2
    assert "in.jsonl:1: the tokenizer has no token for '日'" in capsys.readouterr().err
    assert run(tokenizer, rows, "--max-bad", "2") == 0
    assert IndexedTokens(tmp_path / "out").num_documents == 3
    listed = [json.loads(line) for line in (tmp_path / "out.bad.jsonl").read_text().splitlines()]
    assert [row["line"] for row in listed] == [1, 2]
    chats = [{"prompt": "it", "completion": text} for text in ("is", "日", "a")]
    more = ("--mode", "sft", "--template", "raw", "--overwrite", "--max-bad", "1")
    assert run(tokenizer, chats, *more) == 0
    assert IndexedTokens(tmp_path / "out").num_documents == 2


@pytest.mark.parametrize(
    ("change", "model", "drops"),
    [
        (lambda _made: None, {}, True),
        (lambda _made: None, {"unk_token": "<unk>"}, False),
        (byte_level, {}, False),
        (strip_accents, {}, True),
    ],
)
def test_which_tokenizers_are_asked(
    tmp_path: Path, change: Callable[[Any], None], model: dict[str, Any], drops: bool
) -> None:
    path = make(tmp_path, change, **model)
    assert Tokenizer(path).may_drop is drops
    # What a normalizer takes away on purpose is not missed.
    unknown = drops and change is not strip_accents
    assert run(path, [{"text": "a wórd"}]) == (2 if unknown else 0)
