"""A small tokenizer, and a command line over one folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_tools import preprocess
from data_tools.train_tokenizer import Training, train_tokenizer
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.tokenizer import Tokenizer
from tests.data_tools.plain_corpus import run, text

Tokenize = Callable[..., int]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece model; any text comes back from its tokens."""
    folder = tmp_path_factory.mktemp("model")
    rows = [json.dumps({"text": f"the {n} words of number {n * n}"}) for n in range(100)]
    (folder / "in.jsonl").write_text("\n".join(rows) + "\n")
    train_tokenizer([folder / "in.jsonl"], folder / "t.model", Training(300, 20_000))
    return folder / "t.model"


@pytest.fixture
def tokenize(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokenize:
    """`preprocess` inside tmp_path: inputs and options, with `out` as the prefix."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, out: str = "out") -> int:
        given = [*words, "--tokenizer", str(model), "--output-prefix", out]
        return preprocess.main(given)

    return run


@pytest.fixture
def texts(model: Path) -> Callable[[str | Path], list[str]]:
    """The documents of a prefix, decoded, without their end-of-document token."""
    tokenizer = Tokenizer(model)

    def read(prefix: str | Path = "out") -> list[str]:
        file = IndexedTokens(prefix)
        found, start = [], 0
        for length in file.lengths:
            tokens = file.tokens[start : start + int(length)]
            assert tokens[-1] == tokenizer.eod
            found.append(tokenizer.decode(tokens[:-1].tolist()))
            start += int(length)
        return found

    return read


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and 2,000 documents."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = [json.dumps({"text": text(number)}) for number in range(2000)]
    (folder / "all.jsonl").write_text("\n".join(rows) + "\n")
    train_tokenizer([folder / "all.jsonl"], folder / "t.model", Training(300, 100_000))
    return folder


@pytest.fixture(scope="session")
def whole(corpus: Path) -> Path:
    assert run(corpus, corpus / "whole", str(corpus / "all.jsonl")) == 0
    return corpus / "whole"
