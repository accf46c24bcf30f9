"""Every setting of train_tokenizer, seen in the model that sentencepiece reads back."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as some
from sentencepiece import sentencepiece_model_pb2

from data_tools import train_tokenizer
from data_tools.train_tokenizer import Training
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError

SOURCE = Path(json.__file__).read_text() + Path(random.__file__).read_text()


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def words(letters: str, count: int) -> list[str]:
    """Documents in an alphabet of their own: a piece tells which source it was learnt from."""
    draw = random.Random(letters)
    return [
        " ".join("".join(draw.choices(letters, k=draw.randint(2, 7))) for _ in range(20))
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("source") / "in.jsonl", [SOURCE] * 2)


@pytest.fixture(scope="module")
def models(source: Path) -> dict[str, Path]:
    """One model per type."""
    found = {}
    for kind in ("bpe", "unigram"):
        found[kind] = source.parent / f"{kind}.model"
        train_tokenizer.train_tokenizer(
            [source], found[kind], Training(600, model_type=kind, special_tokens=("<|user|>",))
        )
    return found


def stored(path: Path) -> Any:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    return proto


def test_the_model_holds_what_was_asked(models: dict[str, Path]) -> None:
    for kind, number in (("unigram", 1), ("bpe", 2)):
        spec = stored(models[kind]).trainer_spec
        assert (spec.model_type, spec.vocab_size) == (number, 600)
        assert spec.byte_fallback
        assert spec.split_digits
        model = sentencepiece.SentencePieceProcessor(model_file=str(models[kind]))
        special = model.piece_to_id("<|user|>")
        assert model.is_control(special)
        assert Tokenizer(models[kind], "<|user|>").eod == special


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_any_text_comes_back_and_never_becomes_a_special_token(
    models: dict[str, Path], kind: str
) -> None:
    tokenizer = Tokenizer(models[kind])
    model = sentencepiece.SentencePieceProcessor(model_file=str(models[kind]))
    special = {number for number in range(600) if model.is_control(number)}
    assert len(special) == 3
    # sentencepiece itself writes a space as this character, so that it comes back as a space.
    letters = some.characters(exclude_characters="▁", exclude_categories=("Cs",))
    spelled = some.sampled_from(["<|user|>", "</s>", "<s>", "<unk>", "<0x41>", "  ", "\t\n", "12"])
    parts = some.lists(some.one_of(some.text(letters, max_size=20), spelled), max_size=8)

    @given(parts)
    @settings(max_examples=300, deadline=None)
    def check(parts: list[str]) -> None:
        text = "".join(parts)
        (ids,) = tokenizer.encode([text])
        assert tokenizer.decode(ids.tolist()) == text
        assert not special & set(ids.tolist())
        assert model.unk_id() not in ids

    check()


def test_every_character_comes_back(models: dict[str, Path]) -> None:
    tokenizer = Tokenizer(models["bpe"])
    codes = [*range(0xD800), *range(0xE000, 0x10000), *range(0x10000, 0x110000, 101)]
    texts = [f"a{chr(code)}b" for code in codes]
    lost = [
        text
        for text, ids in zip(texts, tokenizer.encode(texts), strict=True)
        if tokenizer.decode(ids.tolist()) != text
    ]
    assert lost == ["a▁b"]


def test_without_byte_fallback_and_with_whole_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [SOURCE + " 2024" * 500])
    output = tmp_path / "t.model"
    options = ["--vocab-size", "600", "--no-byte-fallback", "--no-split-digits"]
    assert train_tokenizer.main([str(path), "--output", str(output), *options]) == 0
    model = sentencepiece.SentencePieceProcessor(model_file=str(output))
    assert not any(model.is_byte(number) for number in range(600))
    assert model.encode(" 2024 字", out_type=int)[0] == model.piece_to_id("▁2024")
    assert model.unk_id() in model.encode("字", out_type=int)


def test_sources_count_evenly_or_by_weight(tmp_path: Path) -> None:
    """Three times the text of one source changes nothing; weights do."""
    large = write(tmp_path / "large.jsonl", words("abcdefgh", 2000))
    small = write(tmp_path / "small.jsonl", words("ijklmnop", 600))
    found = {}
    for weights in (None, (1.0, 7.0), (7.0, 1.0)):
        output = tmp_path / "t.model"
        training = Training(600, 30_000, weights, byte_fallback=False)
        learnt = train_tokenizer.train_tokenizer([large, small], output, training, overwrite=True)
        share = [1, 1] if weights is None else weights
        assert [row.wanted for row in learnt] == [
            round(60_000 * each / sum(share)) for each in share
        ]
        assert all(row.wanted <= row.taken < row.wanted + 1000 for row in learnt)
        pieces = [piece.piece.strip("▁") for piece in stored(output).pieces]
        from_small = sum(bool(piece) and set(piece) <= set("ijklmnop") for piece in pieces)
        found[weights] = from_small / len(pieces)
    assert found[(7.0, 1.0)] < 0.35 < found[None] < 0.65 < found[(1.0, 7.0)]


def test_text_is_taken_from_all_over_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_tools.inputs.SMALLEST_RANGE", 10_000)
    path = write(tmp_path / "in.jsonl", words("abcd", 400) + words("wxyz", 400))
    for spread, both in ((True, True), (False, False)):
        output = tmp_path / "t.model"
        training = Training(300, 20_000, byte_fallback=False, spread=spread)
        train_tokenizer.train_tokenizer([path], output, training, overwrite=True)
        letters = set("".join(piece.piece for piece in stored(output).pieces))
        assert set("abcd") <= letters
        assert (set("wxyz") <= letters) == both


def test_a_source_may_be_a_pattern_of_any_format(tmp_path: Path) -> None:
    for number, part in enumerate((words("abcd", 60), words("wxyz", 60))):
        lines = "".join(json.dumps({"doc": {"body": text}}) + "\n" for text in part)
        (tmp_path / f"{number}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    output = tmp_path / "t.model"
    command = [str(tmp_path / "*.gz"), "--text-key", "doc.body", "--output", str(output)]
    assert train_tokenizer.main([*command, "--vocab-size", "300"]) == 0
    assert set("abcdwxyz") <= set("".join(piece.piece for piece in stored(output).pieces))


def test_too_little_text_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "in.jsonl", [SOURCE[:30_000]])
    output = tmp_path / "t.model"
    assert train_tokenizer.main([str(path), "--output", str(output), "--vocab-size", "400"]) == 0
    assert "30,000 characters of 10,000,000 wanted" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["{", "3", '{"other": "x"}', '{"text": 3}', '{"text": null}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "good"}\n' + line + "\n")
    output = tmp_path / "t.model"
    assert train_tokenizer.main([str(tmp_path / "in.jsonl"), "--output", str(output)]) == 2
    assert "in.jsonl:2: " in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": (1.0,)}, "1 numbers, but there are 2"),
        ({"weights": (1.0, 0.0)}, "above 0"),
        ({"weights": (1.0, float("nan"))}, "above 0"),
        ({"special_tokens": ("<a>", "<a>")}, "given twice"),
        ({"special_tokens": ("</s>",)}, "token of every model"),
        ({"special_tokens": ("<0x0A>",)}, "token of every model"),
        ({"special_tokens": (" ",)}, "is empty"),
        ({"vocab_size": 0}, "at least 1"),
        ({"vocab_size": 10}, "cannot be trained"),
        ({"vocab_size": 100_000}, "cannot be trained"),
    ],
)
def test_mistakes_say_what_is_wrong(
    source: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    second = write(tmp_path / "in.jsonl", [SOURCE])
    with pytest.raises(UserError, match=message):
        train_tokenizer.train_tokenizer([source, second], tmp_path / "t", Training(**options))
    assert not (tmp_path / "t").exists()


def test_a_source_given_twice_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="given twice"):
        train_tokenizer.train_tokenizer([source, source], tmp_path / "t")


def test_blank_lines_are_passed_over_and_bad_ones_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("First paragraph of a book.\n\nSecond paragraph of a book.\n")
    words = [str(book), "--vocab-size", "280", "--output", str(tmp_path / "t.model")]
    assert train_tokenizer.main(words) == 0
    assert train_tokenizer.main(words) == 2
    assert "is there already" in capsys.readouterr().err
    book.write_bytes(book.read_bytes() + b"\xff\xfe\n")
    assert train_tokenizer.main([*words, "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert "book.txt:4: not UTF-8 (byte 0 of the line) (1 bad line(s) so far" in error
    assert "Problem" not in error
    assert train_tokenizer.main([*words, "--overwrite", "--max-bad", "1"]) == 0
    book.write_text("\n")
    assert train_tokenizer.main([*words, "--overwrite"]) == 2
    assert "no document to learn from" in capsys.readouterr().err
