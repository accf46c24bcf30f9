"""What differs in what its tokens mean is not joined, and nothing counts twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from data_tools import merge
from fastmix_mega.data.indexed_manifest import read_manifest
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.tokenizer import Tokenizer
from tests.data_tools.conftest import Tokenize


def write(name: str, *texts: str) -> None:
    Path(name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def join(*words: str) -> int:
    return merge.main([*words, "--output-prefix", "m"])


def test_other_ends_and_starts(tokenize: Tokenize, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.jsonl", "one")
    write("b.jsonl", "two")
    assert tokenize("a.jsonl", out="a") == 0
    assert tokenize("b.jsonl", "--eod", "<s>", out="eod") == 0
    assert tokenize("b.jsonl", "--bos", out="bos") == 0
    for first, second in (("a", "eod"), ("eod", "a")):
        assert join(first, second) == 2
        assert "different end-of-document tokens" in capsys.readouterr().err
    for first, second in (("a", "bos"), ("bos", "a")):
        assert join(first, second) == 2
        assert "different first tokens" in capsys.readouterr().err
    assert not Path("m.bin").exists()
    # Earlier versions did not say it: the tokens do.
    for name, code in (("bos", 0), ("a", 2)):
        path = Path(f"{name}.manifest.json")
        content = json.loads(path.read_text())
        del content["bos"]
        path.write_text(json.dumps(content))
        write("c.jsonl", "three")
        assert tokenize("c.jsonl", "--bos", out=f"c{name}") == 0
        assert join(f"c{name}", name) == code
        assert join(name, f"c{name}", "--overwrite") == code
    manifest = read_manifest("m")
    assert manifest is not None
    assert manifest.bos is not None


def test_the_same_tokens_twice(tokenize: Tokenize, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.jsonl", "one")
    assert tokenize("a.jsonl", out="a") == 0
    Path("s").mkdir()
    for kind in ("bin", "idx", "manifest.json"):
        shutil.copy(f"a.{kind}", f"copy.{kind}")
        Path(f"link.{kind}").symlink_to(f"a.{kind}")
    for other in ("a", "./a", "s/../a", "link", "copy"):
        assert join("a", other) == 2, other
        assert "would count twice" in capsys.readouterr().err
    # Without manifests too.
    for name in ("a", "copy"):
        Path(f"{name}.manifest.json").unlink()
    assert join("a", "copy") == 2
    assert "holds the same tokens as a" in capsys.readouterr().err
    assert join("a", "copy", "--allow-copies") == 0
    assert IndexedTokens("m").num_documents == 2


def test_shares_of_one_job_may_repeat_themselves(tokenize: Tokenize) -> None:
    rows = [{"text": "the same"}] * 40
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, "a.parquet", row_group_size=20)
    for share in ("1", "2"):
        assert tokenize("a.parquet", "--task", f"{share}/2", "--origins", out=share) == 0
    assert Path("1.bin").read_bytes() == Path("2.bin").read_bytes()
    assert join("1", "2") == 0
    found = pyarrow.parquet.read_table("m.origins.parquet").to_pylist()
    assert found == [{"file": "a.parquet", "row": row} for row in range(1, 41)]


def test_megatrons_files_with_ours(
    tokenize: Tokenize, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer(model)
    write("a.jsonl", "one")
    assert tokenize("a.jsonl", out="a") == 0

    def megatron(name: str, documents: list[list[int]]) -> None:
        with IndexedWriter(name, np.dtype(np.uint16)) as writer:
            for document in documents:
                writer.add_document(document)
        Path(f"{name}.manifest.json").unlink()

    megatron("good", [[7, tokenizer.eod], [tokenizer.eod]])
    megatron("open", [[7, tokenizer.eod], [8]])
    megatron("large", [[tokenizer.vocab_size, tokenizer.eod]])
    assert join("a", "good") == 2
    assert "say with --tokenizer what made it" in capsys.readouterr().err
    for bad, message in (("open", "not every document ends with"), ("large", "outside the voc")):
        assert join("a", bad, "--tokenizer", str(model)) == 2
        assert message in capsys.readouterr().err
    assert join("good", "a", "--tokenizer", str(model)) == 0
    manifest: Any = read_manifest("m")
    assert manifest.tokenizer_sha256 == tokenizer.sha256
    assert manifest.eod == tokenizer.eod
    assert manifest.documents == 3


def test_nothing_at_all(tokenize: Tokenize) -> None:
    write("a.jsonl")
    assert tokenize("a.jsonl", "--allow-empty", out="a") == 0
    assert join("a") == 2
    assert join("a", "--allow-empty") == 0
