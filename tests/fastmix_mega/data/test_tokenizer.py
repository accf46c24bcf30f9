from __future__ import annotations

import io
from pathlib import Path

import pytest
import sentencepiece

from data_tools.train_tokenizer import Training, train_tokenizer
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.files import append_jsonl

TEXT = Path(io.__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    append_jsonl(folder / "in.jsonl", {"text": TEXT})
    train_tokenizer([folder / "in.jsonl"], folder / "t.model", Training(400))
    return folder / "t.model"


def test_text_comes_back_and_the_end_is_the_callers(model: Path) -> None:
    tokenizer = Tokenizer(model)
    texts = ["  def f(x):\n\treturn x  # twice\n", "x=1234", "Ωμέγα 字 🦊", "</s> is text here"]
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        assert tokenizer.decode(ids.tolist()) == text
        assert tokenizer.eod not in ids
        assert 0 <= ids.min() <= ids.max() < tokenizer.vocab_size == 400


def test_digits_stand_alone(model: Path) -> None:
    """One token per digit, whatever the number."""
    tokenizer = Tokenizer(model)
    (ids,) = tokenizer.encode(["1024"])
    assert [tokenizer.decode([each]) for each in ids] == list("1024")


def test_the_same_text_gives_the_same_model(model: Path, tmp_path: Path) -> None:
    train_tokenizer([model.parent / "in.jsonl"], tmp_path / "again.model", Training(400))
    assert Tokenizer(tmp_path / "again.model").sha256 == Tokenizer(model).sha256


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.model"):
        Tokenizer(tmp_path / "none.model")
    (tmp_path / "text.model").write_text("no model")
    with pytest.raises(UserError, match=r"text\.model is not a sentencepiece model"):
        Tokenizer(tmp_path / "text.model")
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=content,
        model_type="bpe",
        vocab_size=300,
        eos_id=-1,
        minloglevel=2,
    )
    (tmp_path / "endless.model").write_bytes(content.getvalue())
    with pytest.raises(UserError, match="has no </s>"):
        Tokenizer(tmp_path / "endless.model")
