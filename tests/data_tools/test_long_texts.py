"""The bound on memory that docs/data.md states for long lines, and how it is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools import preprocess
from data_tools.long_texts import LARGEST, LARGEST_JSON, default_largest
from tests.data_tools.chats import byte_tokenizer

ENCODE = """
import resource, sys
from fastmix_mega.data.tokenizer import Tokenizer
tokenizer = Tokenizer(sys.argv[1])
tokenizer.encode(["x"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tokenizer.encode([sys.argv[2] * (2_000_000 // len(sys.argv[2]))])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 2_000_000)
"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(tmp_path_factory.mktemp("json"))


@pytest.mark.parametrize("text", ["ZQX JVK 9%$ ", "\u00e9\u65e5"])
def test_bytes_of_memory_for_a_byte(tokenizer: Path, text: str) -> None:
    command = [sys.executable, "-c", ENCODE, str(tokenizer), text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 300


def test_longer_documents_are_asked_for(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert default_largest(tokenizer) == default_largest(tokenizer.parent) == LARGEST_JSON
    assert default_largest(Path("t.model")) == LARGEST
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "word " * (LARGEST_JSON // 5)}) + "\n")
    words = ["--tokenizer", str(tokenizer), "--output-prefix", str(tmp_path / "o")]
    assert preprocess.main([str(path), *words]) == 2
    assert "a.jsonl:1: longer than 8,388,608 bytes" in capsys.readouterr().err
