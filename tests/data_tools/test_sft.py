"""Instruction data through the tools: shapes, masks, resuming, merge, split, verify, inspect."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from megatron.core.datasets.indexed_dataset import IndexedDataset

from data_tools import inspect, merge, preprocess, preprocess_run, split, verify
from data_tools.workers import run_units
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from tests.data_tools.chats import conversation, sentencepiece_model, write_rows

FILES = ("bin", "idx", "mask.bin", "mask.idx", "manifest.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sft")
    sentencepiece_model(made)
    write_rows(made / "chats.jsonl", [conversation(number) for number in range(400)])
    return made


def words(folder: Path, output: Path, *inputs: Path, more: tuple[str, ...] = ()) -> list[str]:
    given = [str(path) for path in inputs] or [str(folder / "chats.jsonl")]
    tokenizer = ["--tokenizer", str(folder / "t.model"), "--mode", "sft"]
    return [*given, *tokenizer, "--output-prefix", str(output), *more]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    assert preprocess.main(words(folder, folder / "whole")) == 0
    return folder / "whole"


def answers(prefix: Path, tokenizer: Tokenizer) -> list[str]:
    """What counts of every document, decoded."""
    file = IndexedTokens(prefix)
    assert file.mask is not None
    ends = np.cumsum(file.lengths)[:-1]
    documents, masks = np.split(file.tokens, ends), np.split(file.mask.tokens, ends)
    return [tokenizer.decode(d[m == 1]) for d, m in zip(documents, masks, strict=True)]


def test_every_shape_gives_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    pairs = [(f"what is {n}?", f"it is {n}.") for n in range(30)]

    def told(kind: str, question: str, answer: str) -> dict[str, Any]:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {
            "messages": {"messages": turns, "prompt": "not this"},
            "parts": {
                "messages": [
                    t | {"content": [{"type": "text", "text": t["content"]}]} for t in turns
                ]
            },
            "conversations": {
                "conversations": [
                    {"from": "human", "value": question},
                    {"from": "gpt", "value": answer},
                ]
            },
            "prompt": {"prompt": question, "completion": answer},
            "lists": {"prompt": turns[:1], "completion": turns[1:]},
            "alpaca": {"instruction": question, "input": "", "output": answer},
            "question": {"question": question, "answer": answer},
        }[kind]

    kinds = ("messages", "parts", "conversations", "prompt", "lists", "alpaca", "question")
    contents = set()
    for kind in kinds:
        rows = [told(kind, *pair) for pair in pairs]
        paths = [write_rows(tmp_path / f"{kind}.jsonl", rows)]
        if kind in ("messages", "alpaca", "conversations"):
            paths.append(tmp_path / f"{kind}.parquet")
            table = pyarrow.Table.from_pylist(rows)
            pyarrow.parquet.write_table(table, paths[-1], row_group_size=7)
        for path in paths:
            more = ("--overwrite",)
            assert preprocess.main(words(folder, tmp_path / "out", path, more=more)) == 0
            contents.add(
                b"".join(
                    (tmp_path / f"out.{kind}").read_bytes()
                    for kind in FILES
                    if kind != "manifest.json"
                )
            )
    assert len(contents) == 1
    tokenizer = Tokenizer(folder / "t.model")
    assert answers(tmp_path / "out", tokenizer) == [answer for _, answer in pairs]
    megatron = IndexedDataset(str(tmp_path / "out.mask"))
    assert [len(mask) for mask in megatron] == IndexedTokens(tmp_path / "out").lengths.tolist()
    # The alpaca input stands below its instruction; several files may be of several shapes.
    write_rows(tmp_path / "in.jsonl", [{"instruction": "add", "input": "1 2", "output": "3"}])
    both = (tmp_path / "in.jsonl", tmp_path / "question.jsonl")
    assert preprocess.main(words(folder, tmp_path / "both", *both)) == 0
    file = IndexedTokens(tmp_path / "both")
    shown = tokenizer.decode(file.tokens[: file.lengths[0]])
    assert shown == "User:\nadd\n\n1 2\nAssistant:\n3"


def test_what_is_no_conversation(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user = {"role": "user", "content": "q"}
    rows: list[tuple[dict[str, Any], str]] = [
        ({"messages": [user, {"role": "assistant", "content": "a"}]}, ""),
        ({"messages": []}, "not a list of messages"),
        ({"messages": [user]}, "no message of the assistant's counts"),
        ({"messages": [user, {"role": "assistant", "content": ""}]}, "an answer is empty"),
        ({"messages": [user, {"role": "wizard", "content": "a"}]}, "unknown role 'wizard'"),
        ({"messages": [user, {"role": "assistant", "content": None}]}, "has no text"),
        ({"messages": [user, {"role": "assistant", "content": "a", "weight": 0}]}, "counts"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "has no text"),
        ({"question": "q", "answer": "a"}, "not an object with the key 'messages'"),
    ]
    path = write_rows(tmp_path / "bad.jsonl", [row for row, _ in rows])
    with path.open("a") as file:
        file.write("[1]\n{\n")
    output = tmp_path / "out"
    assert preprocess.main(words(folder, output, path)) == 2
    assert "bad.jsonl:2: 'messages' is not a list of messages" in capsys.readouterr().err
    assert (
        preprocess.main(
            words(folder, output, path, more=("--max-bad", "20", "--max-bad-share", "1"))
        )
        == 0
    )
    found = [json.loads(line) for line in (tmp_path / "out.bad.jsonl").read_text().splitlines()]
    assert [line["line"] for line in found] == list(range(2, 12))
    for line, (_, reason) in zip(found, rows[1:], strict=False):
        assert reason in line["reason"]
    assert IndexedTokens(output).num_documents == 1
    for name, row, more, message in (
        ("a.jsonl", {"text": "no"}, (), "its first row (fields: text) is no conversation"),
        ("b.txt", {"text": "no"}, (), "is plain text"),
        ("c.jsonl", rows[0][0], ("--backend", "gigatoken"), "is for text"),
        ("d.jsonl", rows[0][0], ("--template", "hf"), "give a tokenizer.json"),
    ):
        write_rows(tmp_path / name, [row])
        (tmp_path / "tokenizer_config.json").write_text("{}")
        assert preprocess.main(words(folder, tmp_path / "x", tmp_path / name, more=more)) == 2
        error = capsys.readouterr().err
        assert message in error or "--template hf" in error


def test_killed_and_resumed_is_byte_identical(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended after some units, one part torn, gone on with; and the shares of an array job."""
    rows = [conversation(number) for number in range(900)]
    path = tmp_path / "groups.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=100)
    assert preprocess.main(words(folder, tmp_path / "once", path)) == 0

    def killed(*arguments: Any) -> Iterator[Any]:
        yield from itertools.islice(run_units(*arguments), 4)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preprocess_run, "run_units", killed)
        with pytest.raises(KeyboardInterrupt):
            preprocess.main(words(folder, tmp_path / "a", path))
    parts = sorted(tmp_path.glob("a.parts/*.part"))
    assert len(parts) == 4
    assert not (tmp_path / "a.manifest.json").exists()
    # The last byte of a mask, just before the lengths.
    content = bytearray(parts[1].read_bytes())
    content[-4 * 100 - 1] ^= 1
    parts[1].write_bytes(content)
    assert preprocess.main(words(folder, tmp_path / "a", path)) == 0
    shares = []
    for task in ("1/3", "2/3", "3/3"):
        shares.append(str(tmp_path / f"share{task[0]}"))
        share = words(folder, Path(shares[-1]), path, more=("--task", task))
        assert preprocess.main(share) == 0
    assert merge.main([*shares, "--output-prefix", str(tmp_path / "merged")]) == 0
    for kind in FILES[:-1]:
        once = (tmp_path / f"once.{kind}").read_bytes()
        assert (tmp_path / f"a.{kind}").read_bytes() == once
        assert (tmp_path / f"merged.{kind}").read_bytes() == once
    assert (tmp_path / "a.manifest.json").read_text() == (
        tmp_path / "once.manifest.json"
    ).read_text()
    merged, at_once = (IndexedTokens(tmp_path / name).manifest for name in ("merged", "once"))
    assert merged is not None
    assert at_once is not None
    assert merged.mask == at_once.mask
    assert not list(tmp_path.glob("*.parts"))


def test_split_keeps_tokens_and_masks_together(
    folder: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer(folder / "t.model")
    counts = split.split(str(whole), tmp_path / "s", 0.2, 0.2)
    sides = [tmp_path / f"s_{side}" for side in counts]
    together = sorted(text for side in sides for text in answers(side, tokenizer))
    assert together == sorted(answers(whole, tokenizer))
    assert all(not list(verify.problems(str(side), deep=True)) for side in sides)
    capsys.readouterr()
    assert inspect.main([str(whole), "--tokenizer", str(folder / "t.model")]) == 0
    shown = capsys.readouterr().out
    assert "answer tokens" in shown
    assert shown.count("«") >= 2


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        ("mask.bin", lambda b: b[:9] + b"\2" + b[10:], "2 at offset 9; a mask is 0 or 1"),
        ("mask.bin", lambda b: bytes([1 - b[0]]) + b[1:], "another checksum"),
        ("mask.bin", lambda b: b[:-1], "mask.bin has .* bytes"),
        ("mask.idx", lambda b: b[:-1], "mask.idx is broken"),
        ("mask.bin", None, "mask.bin is missing"),
        ("manifest.json", lambda b: b.replace(b'"mask"', b'"mosk"'), "knows of no loss mask"),
    ],
)
def test_a_damaged_mask_is_named(
    whole: Path, tmp_path: Path, kind: str, damage: Any, message: str
) -> None:
    for each in FILES:
        (tmp_path / f"d.{each}").write_bytes(Path(f"{whole}.{each}").read_bytes())
    path = tmp_path / f"d.{kind}"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    problems = list(verify.problems(str(tmp_path / "d"), deep=True))
    assert re.search(message, problems[0])
    with pytest.raises(UserError):
        merge.merge([str(tmp_path / "d")], tmp_path / "m")
    assert not list(tmp_path.glob("m*"))


def test_masks_of_other_files_are_refused(
    folder: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = write_rows(tmp_path / "t.jsonl", [{"text": "what is the sum"}])
    tokenizer = ["--tokenizer", str(folder / "t.model")]
    # Text over what was a conversation before: no mask of it stays.
    chat = write_rows(tmp_path / "c.jsonl", [{"question": "what", "answer": "the sum"}])
    assert preprocess.main(words(folder, tmp_path / "t", chat)) == 0
    again = [str(text), *tokenizer, "--output-prefix", str(tmp_path / "t")]
    assert preprocess.main(again) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert preprocess.main([*again, "--overwrite"]) == 0
    assert IndexedTokens(tmp_path / "t").mask is None
    capsys.readouterr()
    assert (
        merge.main([str(whole), str(tmp_path / "t"), "--output-prefix", str(tmp_path / "m")]) == 2
    )
    assert "conversations and text cannot be joined" in capsys.readouterr().err
    raw = words(folder, tmp_path / "r", chat, more=("--template", "raw"))
    assert preprocess.main(raw) == 0
    assert (
        merge.main([str(whole), str(tmp_path / "r"), "--output-prefix", str(tmp_path / "m")]) == 2
    )
    assert "other chat templates (raw and plain)" in capsys.readouterr().err
    for kind in ("mask.bin", "mask.idx"):
        (tmp_path / f"r.{kind}").write_bytes(Path(f"{whole}.{kind}").read_bytes())
    with pytest.raises(UserError, match=r"r\.mask\.idx is no loss mask of .*r\.idx"):
        IndexedTokens(tmp_path / "r")
