"""What each kind of input gives."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest
from backports import zstd

from fastmix_mega.data.indexed_manifest import read_manifest
from tests.data_tools.conftest import Tokenize

Texts = Callable[..., list[str]]
TWO = [{"text": "hello"}, {"text": 'a, "b"\nc'}]
WANTED = [row["text"] for row in TWO]
BOM = b"\xef\xbb\xbf"
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in TWO)
ARRAY = json.dumps(TWO, indent=1).encode()
CSV = b'id,text\n1,hello\n2,"a, ""b""\nc"\n'


def arrow_file(path: Path, stream: bool) -> None:
    table = pyarrow.Table.from_pylist(TWO)
    make = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with make(str(path), table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl", BOM + LINES),
        ("a.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("a.jsonl", LINES.replace(b"\n", b"\n\n")),
        ("a.jsonl", LINES.rstrip()),
        ("a.json", ARRAY),
        ("a.json", BOM + b" \n" + ARRAY),
        ("a.json", json.dumps(TWO).encode()),
        ("a.jsonl", json.dumps(TWO).encode()),
        ("a.json.gz", gzip.compress(ARRAY, mtime=0)),
        ("a.json.zst", zstd.compress(BOM + ARRAY)),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("a.jsonl.bz2", bz2.compress(BOM + LINES)),
        ("a.jsonl.xz", lzma.compress(LINES)),
        ("a.csv", CSV),
        ("a.csv", BOM + CSV.replace(b"\n1", b"\r\n1")),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)),
        ("a.tsv", CSV.replace(b"id,", b"id\t").replace(b"1,", b"1\t").replace(b"2,", b"2\t")),
        ("a.jsonl", b'{"score":NaN,"text":"hello"}\n' + LINES[LINES.index(b"\n") + 1 :]),
        ("a.json", ARRAY.replace(b'"text": "hello"', b'"score": [-Infinity], "text": "hello"')),
    ],
)
def test_kinds(tokenize: Tokenize, texts: Texts, name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    assert tokenize(name) == 0
    assert texts() == WANTED


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow", "a.feather"])
def test_tables(tokenize: Tokenize, texts: Texts, name: str) -> None:
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TWO), name)
    elif name.endswith("feather"):
        pyarrow.feather.write_feather(pyarrow.Table.from_pylist(TWO), name)
    else:
        arrow_file(Path(name), name.startswith("stream"))
    assert tokenize(name) == 0
    assert texts() == WANTED


@pytest.mark.parametrize("unit", ["line", "file"])
def test_a_byte_order_mark_is_no_text(tokenize: Tokenize, texts: Texts, unit: str) -> None:
    Path("a.txt").write_bytes(BOM + b"hello\n")
    assert tokenize("a.txt", "--text-unit", unit) == 0
    assert texts() == ["hello" if unit == "line" else "hello\n"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl.gz", b"", "a.jsonl.gz is empty"),
        ("a.jsonl.zst", b"", "a.jsonl.zst is empty"),
        ("a.jsonl", b"", "no document to write"),
        ("a.jsonl", b"\n\n", "no document to write"),
        ("a.json", b"[]", "no document to write"),
        ("a.csv", b"id,text\n", "no document to write"),
        ("a.txt", b"", "no document to write"),
        ("a.json", b'[{"text": "a"}, {"te', "the array has no end"),
        ("a.json", b'[{"text": "a"}] {"text": "b"}', "something follows"),
        ("a.json", b'[{"text": "a"},, {"text": "b"}]', "a.json:2: not JSON"),
        ("a.jsonl", LINES.decode().encode("utf-16"), "is UTF-16"),
        ("a.txt", "text".encode("utf-16"), "is UTF-16"),
        ("a.json", b'{\n  "text": "a"\n}\n{\n  "text": "b"\n}\n', "jq -c . "),
        (
            "a.json",
            b'\xef\xbb\xbf{\r\n  "my data" : [\r\n    {"text": "a"}]}',
            "jq -c '.[\"my data\"][]' ",
        ),
        ("a.csv", b'id,text\n1,"never\nclosed\n', "is never closed"),
        ("a.csv", b"id,text\n1,a,b\n", "a.csv:1: 3 fields, but the first row names 2"),
        ("a.csv", b"id,body\n1,a\n", "has no column 'text'; it has id, body"),
        ("a.csv", b"id,text\n1,\xff\n", "a.csv:1: not UTF-8"),
        ("a.csv", b"text,text\n1,a\n", "two columns have the same name"),
        ("a.jsonl", b'{"text":"\\ud800","x":NaN}\n', "not JSON"),
        ("a.jsonl", b'{"text":NaN}\n', "'text' is not a string"),
    ],
)
def test_what_cannot_be_read(
    tokenize: Tokenize,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes,
    message: str,
) -> None:
    Path(name).write_bytes(content)
    assert tokenize(name) == 2
    assert message in capsys.readouterr().err
    assert not Path("out.bin").exists()


def test_no_document_may_be_allowed(tokenize: Tokenize, texts: Texts) -> None:
    Path("a.jsonl").write_bytes(b"")
    assert tokenize("a.jsonl", "--allow-empty") == 0
    assert texts() == []
    # An empty file among others is said.
    Path("b.jsonl").write_bytes(LINES)
    assert tokenize("a.jsonl", "b.jsonl", out="both") == 0
    manifest = read_manifest("both")
    assert manifest is not None
    assert manifest.made_by["empty_files"] == ["a.jsonl"]


class _Standard:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("jsonl", LINES),
        ("jsonl", ARRAY),
        ("jsonl", zstd.compress(LINES)),
        ("csv", gzip.compress(CSV, mtime=0)),
        ("text", b"hello\n"),
    ],
)
def test_standard_input(
    tokenize: Tokenize,
    texts: Texts,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    content: bytes,
) -> None:
    for _ in range(2):
        monkeypatch.setattr(sys, "stdin", _Standard(content))
        assert tokenize("-", "--stdin-format", kind, "--workers", "2") == 0
        assert texts() == (["hello"] if kind == "text" else WANTED)
    assert sorted(path.name for path in Path().iterdir()) == [
        *("out.bin", "out.idx", "out.manifest.json")
    ]
    monkeypatch.setattr(sys, "stdin", _Standard(b""))
    assert tokenize("-", out="none") == 2


def test_a_named_pipe_is_read_to_its_end(tokenize: Tokenize, texts: Texts) -> None:
    os.mkfifo("p.jsonl")
    writing = threading.Thread(target=Path("p.jsonl").write_bytes, args=(LINES,))
    writing.start()
    assert tokenize("p.jsonl") == 0
    writing.join()
    assert texts() == WANTED
    Path("d.jsonl").symlink_to("/dev/null")
    assert tokenize("d.jsonl", out="d") == 2


def test_the_same_file_twice(tokenize: Tokenize, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.jsonl").write_bytes(LINES)
    Path("copy.jsonl").write_bytes(LINES)
    Path("link.jsonl").symlink_to("a.jsonl")
    os.link("a.jsonl", "hard.jsonl")
    Path("s").mkdir()
    for other in (
        "a.jsonl",
        "link.jsonl",
        "hard.jsonl",
        "s/../a.jsonl",
        str(Path("a.jsonl").absolute()),
    ):
        for more in ([], ["--allow-copies"]):
            assert tokenize("a.jsonl", other, *more) == 2, other
            assert "would count twice" in capsys.readouterr().err
    assert tokenize("a.jsonl", "copy.jsonl") == 2
    assert "holds the same bytes as a.jsonl" in capsys.readouterr().err
    assert tokenize("a.jsonl", "copy.jsonl", "--allow-copies") == 0


def test_several_fields_in_one_document(
    tokenize: Tokenize, texts: Texts, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"title": "one", "body": {"text": "first"}},
        {"title": None, "body": {"text": "second"}},
        {"title": "", "body": {"text": ""}},
    ]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "a.parquet")
    keys = ["--text-key", "title", "--text-key", "body.text", "--text-separator", "\\n--\\n"]
    for name in ("a.jsonl", "a.parquet"):
        assert tokenize(name, *keys, "--max-bad", "1", out=name) == 0
        assert texts(name) == ["one\n--\nfirst", "second"]
    Path("b.jsonl").write_text('{"title":"one"}\n')
    assert tokenize("b.jsonl", *keys, out="b") == 2
    assert "not an object with the key 'body.text'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow"])
def test_a_dotted_name_against_a_nested_one(tokenize: Tokenize, texts: Texts, kind: str) -> None:
    """A field of that very name comes first; then the longest name that leads to one."""
    rows = [{"a": {"b": "nested", "c": {"d": "deep"}}, "a.b": "dotted", "a.c": {"d": "half"}}]
    path = f"in.{kind}"
    if kind == "jsonl":
        Path(path).write_text(json.dumps(rows[0]) + "\n")
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        pyarrow.feather.write_feather(pyarrow.Table.from_pylist(rows), path)
    for key, text in (("a.b", "dotted"), ("a.c.d", "half")):
        assert tokenize(path, "--text-key", key, out=key) == 0
        assert texts(key) == [text]


def test_bytes_are_counted_not_characters(tokenize: Tokenize) -> None:
    text = "日本語" * 10
    rows = [{"text": text}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "a.parquet")
    assert tokenize("a.parquet", "--max-bytes", "89") == 2
    assert tokenize("a.parquet", "--max-bytes", "90") == 0
    manifest = read_manifest("out")
    assert manifest is not None
    assert manifest.made_by["text_bytes"] == len(text.encode())
