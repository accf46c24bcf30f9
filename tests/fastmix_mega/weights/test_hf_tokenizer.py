"""Sentencepiece models as tokenizer.json: the same tokens, and the same text back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers

from data_tools.train_tokenizer import Training, train_tokenizer
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.weights.hf_tokenizer import TEXTS, differences, is_translation, write_tokenizer
from tests.fastmix_mega.export.consumers import read_with

CHARACTERS = {"model_type": "char", "vocab_size": 60, "byte_fallback": False}


def ours(path: Path, **settings: Any) -> Path:
    source = path.with_suffix(".jsonl")
    texts = [Path(np.__file__).read_text(), *TEXTS[:4]]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    train_tokenizer([source], path, Training(vocab_size=600, **settings))
    return path


def common(path: Path, **settings: Any) -> Path:
    """As sentencepiece makes them by default: text normalised, a space in front."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(Path(np.__file__).read_text().split("\n")),
        model_writer=model,
        minloglevel=2,
        **({"vocab_size": 600, "byte_fallback": True} | settings),
    )
    path.write_bytes(model.getvalue())
    return path


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("make", [ours, common])
def test_the_same_tokens(tmp_path: Path, make: Any, kind: str) -> None:
    tokenizer = Tokenizer(make(tmp_path / "tokenizer.model", model_type=kind))
    folder = tmp_path / "out"
    folder.mkdir()
    assert write_tokenizer(tokenizer, folder) == []
    translated = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert differences(tokenizer, translated) == 0
    assert is_translation(folder / "tokenizer.model", folder / "tokenizer.json")
    for text in TEXTS:
        (mine,) = tokenizer.encode([text])
        assert translated.encode(text).ids == mine.tolist()
        assert translated.decode(mine.tolist()) == tokenizer.decode(mine.tolist())
    told = json.loads((folder / "tokenizer_config.json").read_text())
    assert (told["eos_token"], told["bos_token"]) == ("</s>", "<s>")
    assert (folder / "tokenizer.model").read_bytes() == Path(tokenizer.path).read_bytes()


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_transformers_makes_the_same_tokens(tmp_path: Path, kind: str) -> None:
    """Also of text that spells control symbols; and it gives a model nothing but its inputs."""
    tokenizer = Tokenizer(ours(tmp_path / "tokenizer.model", model_type=kind))
    folder = tmp_path / "out"
    folder.mkdir()
    write_tokenizer(tokenizer, folder)
    texts = [text for text in TEXTS if text] + ["<s>", "</s>", "a <unk> b", "x<s></s>y"]
    found = read_with("encode", folder, texts)
    assert found["ids"] == [ids.tolist() for ids in tokenizer.encode(texts)]
    assert found["inputs"] == ["attention_mask", "input_ids"]
    assert found["pad"] == tokenizer.eod


def test_a_kind_without_translation_is_told(tmp_path: Path) -> None:
    tokenizer = Tokenizer(common(tmp_path / "tokenizer.model", **CHARACTERS))
    folder = tmp_path / "out"
    folder.mkdir()
    (line,) = write_tokenizer(tokenizer, folder)
    assert "has a kind that no tokenizer.json of ours can be" in line
    assert not (folder / "tokenizer.json").exists()
    told = json.loads((folder / "tokenizer_config.json").read_text())
    assert told["tokenizer_class"] == "LlamaTokenizer"


def test_a_json_goes_as_it_is(tmp_path: Path) -> None:
    found = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "</s>": 1}, "a"))
    source, folder = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    folder.mkdir()
    found.save(str(source / "tokenizer.json"))
    write_tokenizer(Tokenizer(source), folder)
    assert (folder / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    told = json.loads((folder / "tokenizer_config.json").read_text())
    assert told["eos_token"] == told["pad_token"] == "</s>"
    # What its own tokenizer_config.json says stays, and what it leaves out is added.
    own = {"eos_token": "a", "padding_side": "right", "pad_token": None, "mine": 1}
    (source / "tokenizer_config.json").write_text(json.dumps(own))
    write_tokenizer(Tokenizer(source), folder)
    told = json.loads((folder / "tokenizer_config.json").read_text())
    inputs = ["input_ids", "attention_mask"]
    assert told == own | {"pad_token": "a", "model_input_names": inputs}
