"""gigatoken gives what the tokenizer's own library gives, or the run ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as some

from data_tools import fast_encoding, preprocess
from data_tools.fast_encoding import FastEncoder
from data_tools.train_tokenizer import Training, train_tokenizer
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.data.tokenizer_backend import Ids
from fastmix_mega.errors import UserError

SOURCE = Path(json.__file__).read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece model, a tokenizer.json, and two corpora."""
    folder = tmp_path_factory.mktemp("fast")
    lines = [line for line in SOURCE.splitlines() if line.strip()]
    for name, part in (("a", lines[::2]), ("b", lines[1::2])):
        rows = [json.dumps({"text": text}) for text in part]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    train_tokenizer([folder / "a.jsonl"], folder / "t.model", Training(400))
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(lines, trainer)
    made.save(str(folder / "tokenizer.json"))
    return folder


def run(folder: Path, output: Path, tokenizer: str, *options: str) -> int:
    words = [str(folder / "a.jsonl"), str(folder / "b.jsonl")]
    words += ["--tokenizer", str(folder / tokenizer), "--output-prefix", str(output)]
    return preprocess.main([*words, *options])


@pytest.mark.parametrize("name", ["t.model", "tokenizer.json"])
def test_any_text_gives_the_librarys_tokens(folder: Path, name: str) -> None:
    pytest.importorskip("gigatoken")
    tokenizer = Tokenizer(folder / name)
    fast = FastEncoder(tokenizer)
    spelled = some.sampled_from(["</s>", "<s>", "<unk>", "<|endoftext|>", "<0x41>", "  ", "\t\n"])
    text = some.text(some.characters(exclude_categories=("Cs",)), max_size=30)
    parts = some.lists(some.one_of(text, spelled), max_size=6).map("".join)

    @given(some.lists(parts, min_size=1, max_size=5))
    @settings(max_examples=200, deadline=None)
    def check(texts: list[str]) -> None:
        fast.begin_file()
        found = [ids.tolist() for ids in fast.encode(texts)]
        assert found == [ids.tolist() for ids in tokenizer.encode(texts)]

    check()


@pytest.mark.parametrize("name", ["t.model", "tokenizer.json"])
def test_the_result_is_the_same(folder: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("gigatoken")
    assert run(folder, tmp_path / "slow", name) == 0
    assert run(folder, tmp_path / "fast", name, "--backend", "gigatoken") == 0
    for kind in ("bin", "idx"):
        assert (tmp_path / f"slow.{kind}").read_bytes() == (tmp_path / f"fast.{kind}").read_bytes()
    manifest = json.loads((tmp_path / "fast.manifest.json").read_text())
    assert manifest["made_by"]["backend"] == "gigatoken"


def test_a_difference_in_any_file_ends_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The library is made to fail at the first document of the second file."""
    pytest.importorskip("gigatoken")
    first = json.loads((folder / "b.jsonl").read_text().splitlines()[0])["text"]
    whole = FastEncoder.encode_fast

    def wrong(self: FastEncoder, texts: list[str]) -> list[Ids]:
        pairs = zip(texts, whole(self, texts), strict=True)
        return [ids[::-1] if text == first else ids for text, ids in pairs]

    monkeypatch.setattr(FastEncoder, "encode_fast", wrong)
    assert run(folder, tmp_path / "out", "t.model", "--backend", "gigatoken") == 2
    assert "differ for the text that starts" in capsys.readouterr().err
    assert not (tmp_path / "out.bin").exists()


def test_about_a_thousandth_is_compared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gigatoken")
    tokenizer = Tokenizer(folder / "t.model")
    fast = FastEncoder(tokenizer)
    compared: list[str] = []
    encode = tokenizer.encode

    def counted(texts: list[str]) -> list[Ids]:
        compared.extend(texts)
        return encode(texts)

    monkeypatch.setattr(tokenizer, "encode", counted)
    texts = [f"document {number:05}" for number in range(4000)]
    for start in range(0, len(texts), 100):
        fast.encode(texts[start : start + 100])
    assert compared[0] == texts[0]
    assert len(compared) == round(fast_encoding.CHECKED * len(texts))
    fast.begin_file()
    fast.encode(["the first of a file", "the second"])
    assert compared[-1] == "the first of a file"


def test_an_unknown_kind_of_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("gigatoken")
    model = tmp_path / "unigram.model"
    train_tokenizer([folder / "a.jsonl"], model, Training(400, model_type="unigram"))
    with pytest.raises(UserError, match=r"cannot load .*unigram.*leave the option out"):
        FastEncoder(Tokenizer(model))


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    with pytest.raises(UserError, match="pip install gigatoken"):
        FastEncoder(Tokenizer(folder / "t.model"))
