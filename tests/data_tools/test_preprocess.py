"""Formats of input and the tools on the result: merge, split, verify and inspect."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from backports import zstd

from data_tools import inspect, merge, preprocess, split, verify
from data_tools.train_tokenizer import Training, train_tokenizer
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.tokenizer import Tokenizer
from tests.data_tools.plain_corpus import content, run, text


def test_documents_are_those_of_the_tokenizer(corpus: Path, whole: Path) -> None:
    tokenizer = Tokenizer(corpus / "t.model")
    file = IndexedTokens(whole)
    assert file.num_documents == 2000
    starts = file.offsets // file.dtype.itemsize
    for number in (0, 1, 777, 1999):
        tokens = file.tokens[starts[number] : starts[number] + file.lengths[number]]
        (expected,) = tokenizer.encode([text(number)])
        assert tokens.tolist() == [*expected.tolist(), tokenizer.eod]


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst", "parquet", "txt", "dataset"])
def test_every_format_gives_the_same_bytes(
    corpus: Path, whole: Path, tmp_path: Path, kind: str
) -> None:
    raw = (corpus / "all.jsonl").read_bytes()
    texts = [text(number) for number in range(2000)]
    source = tmp_path / f"in.jsonl.{kind}"
    if kind in ("gz", "bz2", "xz", "zst"):
        pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd.compress}
        source.write_bytes(pack[kind](raw))
    elif kind == "parquet":
        source = tmp_path / "in.parquet"
        table = pyarrow.table({"other": range(2000), "text": texts})
        pyarrow.parquet.write_table(table, source, row_group_size=300)
    elif kind == "txt":
        source = tmp_path / "in.txt"
        source.write_text("\n".join(texts))
    else:
        import datasets

        source = tmp_path / "saved"
        datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(source), num_shards=3)
    assert run(corpus, tmp_path / "out", str(source)) == 0
    assert content(tmp_path / "out") == content(whole)


def test_nested_keys_lists_and_several_files(corpus: Path, whole: Path, tmp_path: Path) -> None:
    for part in range(3):
        rows = [
            json.dumps({"data": {"body": text(number)}})
            for number in range(part * 700, min(2000, part * 700 + 700))
        ]
        (tmp_path / f"part{part}.jsonl").write_text("\n".join(rows) + "\n")
    names = "\n".join(str(tmp_path / f"part{part}.jsonl") for part in range(3))
    (tmp_path / "list").write_text(names)
    words = ["--files-from", str(tmp_path / "list"), "--text-key", "data.body"]
    assert run(corpus, tmp_path / "out", *words) == 0
    assert content(tmp_path / "out") == content(whole)


def test_merge_refuses_what_does_not_belong_together(
    corpus: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.model"
    train_tokenizer([corpus / "all.jsonl"], other, Training(310, 100_000))
    words = [str(corpus / "all.jsonl"), "--tokenizer", str(other)]
    assert preprocess.main([*words, "--output-prefix", str(tmp_path / "o")]) == 0
    output = ["--output-prefix", str(tmp_path / "m")]
    assert merge.main([str(whole), str(tmp_path / "o"), *output]) == 2
    assert "other tokenizers" in capsys.readouterr().err
    assert merge.main([str(whole), str(whole), *output]) == 2
    assert "given twice" in capsys.readouterr().err


def test_a_hugging_face_tokenizer(corpus: Path, tmp_path: Path) -> None:
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator((text(number) for number in range(500)), trainer)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    words = [str(corpus / "all.jsonl"), "--tokenizer", str(path)]
    assert preprocess.main([*words, "--output-prefix", str(tmp_path / "out")]) == 0
    file = IndexedTokens(tmp_path / "out")
    first = file.tokens[: file.lengths[0]]
    assert first.tolist() == [*made.encode(text(0)).ids, made.token_to_id("<|endoftext|>")]
    assert Tokenizer(path).decode(first[:-1]) == text(0)


def test_splits_are_stable_when_data_is_added(corpus: Path, whole: Path, tmp_path: Path) -> None:
    some = tmp_path / "some.jsonl"
    some.write_text("\n".join((corpus / "all.jsonl").read_text().splitlines()[:1000]) + "\n")
    assert run(corpus, tmp_path / "some", str(some)) == 0
    shares = ["--valid", "0.2", "--test", "0.1"]
    for name, prefix in (("few", tmp_path / "some"), ("all", whole)):
        assert split.main([str(prefix), "--output-prefix", str(tmp_path / name), *shares]) == 0
    total = 0
    for side in ("train", "valid", "test"):
        few, everything = (documents(tmp_path / f"{name}_{side}") for name in ("few", "all"))
        assert everything[: len(few)] == few
        total += len(everything)
    assert total == 2000
    assert 300 < len(documents(tmp_path / "all_valid")) < 500


def documents(prefix: Path) -> list[bytes]:
    file = IndexedTokens(prefix)
    ends = np.cumsum(file.lengths)
    return [part.tobytes() for part in np.split(file.tokens, ends[:-1])]


def test_verify_finds_every_single_damage(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join((corpus / "all.jsonl").read_text().splitlines()[:20]) + "\n")
    assert run(corpus, tmp_path / "out", str(few)) == 0
    draw = random.Random(3)
    for kind in ("bin", "idx", "manifest.json"):
        path = tmp_path / f"out.{kind}"
        good = path.read_bytes()
        for _ in range(200 if kind != "manifest.json" else 40):
            bad = bytearray(good)
            if draw.random() < 0.2:
                del bad[draw.randrange(len(bad)) :]
            else:
                bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
            path.write_bytes(bad)
            code = verify.main([str(tmp_path / "out"), "--deep"])
            # Damage to what the manifest says of the origin changes no token.
            assert code == 2 or (kind == "manifest.json" and code == 0)
            assert "Traceback" not in capsys.readouterr().err
        path.write_bytes(good)
    assert verify.main([str(tmp_path / "out"), "--deep"]) == 0


def test_inspect_shows_text_and_shares(
    corpus: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.main([str(whole), "--tokenizer", str(corpus / "t.model")]) == 0
    shown = capsys.readouterr().out
    assert "2,000" in shown
    assert "100.00%" in shown
    assert text(0)[:40] in shown


@pytest.mark.parametrize("kind", ["bin", "idx"])
def test_damage_gets_no_new_manifest(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """What opening cannot see, since it reads no tokens: merge and split read all."""
    for name in ("bin", "idx", "manifest.json"):
        (tmp_path / f"in.{name}").write_bytes(Path(f"{whole}.{name}").read_bytes())
    damaged = bytearray((tmp_path / f"in.{kind}").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / f"in.{kind}").write_bytes(damaged)
    IndexedTokens(tmp_path / "in")
    for tool in (merge, split):
        assert tool.main([str(tmp_path / "in"), "--output-prefix", str(tmp_path / "out")]) == 2
        assert f"in.{kind}" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
