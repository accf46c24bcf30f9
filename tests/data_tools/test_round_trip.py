"""From text to token files and back, read by megatron-core: odd lengths and vocabularies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as some
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset

from data_tools import merge, preprocess
from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.tokenizer import Tokenizer


def word_tokenizer(path: Path, vocab_size: int) -> Path:
    """A tokenizer.json of words t0, t1, ...: each id is known beforehand."""
    vocabulary = {f"t{number}": number for number in range(vocab_size - 1)}
    vocabulary["</s>"] = vocab_size - 1
    model = tokenizers.models.WordLevel(vocabulary, unk_token="t0")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(path))
    return path


def run(folder: Path, tokenizer: Path, texts: list[str]) -> Path:
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words = [str(source), "--tokenizer", str(tokenizer), "--output-prefix", str(folder / "out")]
    assert preprocess.main(words) == 0
    return folder / "out"


@pytest.mark.parametrize("vocab_size", [65498, 65499, 65500, 65501, 65535, 65536, 65537, 70_000])
def test_vocabularies_around_two_bytes(tmp_path: Path, vocab_size: int) -> None:
    tokenizer = word_tokenizer(tmp_path / "tokenizer.json", vocab_size)
    highest = [vocab_size - 2, 1, vocab_size - 3, 0, min(65535, vocab_size - 2)]
    prefix = run(tmp_path, tokenizer, [" ".join(f"t{number}" for number in highest)])
    expected = [*highest, vocab_size - 1]
    assert Tokenizer(tokenizer).vocab_size == vocab_size
    assert IndexedTokens(prefix).dtype == DType.optimal_dtype(vocab_size) == token_dtype(vocab_size)
    assert IndexedTokens(prefix).tokens.tolist() == expected
    megatron = IndexedDataset(str(prefix))
    assert megatron[0].tolist() == expected
    merge.main([str(prefix), "--output-prefix", str(tmp_path / "merged")])
    assert IndexedTokens(tmp_path / "merged").tokens.tolist() == expected


def test_documents_of_no_one_and_a_million_tokens(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(tmp_path / "tokenizer.json", 1000)
    many = np.random.default_rng(0).integers(0, 999, 10**6)
    texts = [" ", "t5", " ".join(f"t{number}" for number in many), "\n", "t6"]
    prefix = run(tmp_path, tokenizer, texts)
    found = IndexedDataset(str(prefix))
    documents = [found[number].tolist() for number in range(len(found))]
    assert documents == [[999], [5, 999], [*many.tolist(), 999], [999], [6, 999]]
    assert found.document_indices.tolist() == [0, 1, 2, 3, 4, 5]


@given(
    some.lists(some.sampled_from([0, 0, 1, 2, 500]), max_size=8),
    some.sampled_from([np.uint16, np.int32, np.uint8, np.int64]),
)
@settings(max_examples=40, deadline=None)
def test_any_lengths_are_read_by_megatron(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], dtype: type[np.integer]
) -> None:
    folder = tmp_path_factory.mktemp("lengths")
    draw = np.random.default_rng(len(lengths))
    documents = [draw.integers(0, 250, length) for length in lengths]
    with IndexedWriter(folder / "a", np.dtype(dtype)) as writer:
        for document in documents:
            writer.add_document(document)
    merge.merge([str(folder / "a")], folder / "b", merge.MergeOptions(allow_empty=True))
    assert (folder / "a.idx").read_bytes() == (folder / "b.idx").read_bytes()
    if sum(lengths):
        found = IndexedDataset(str(folder / "b"), mmap=False)
        assert [found[n].tolist() for n in range(len(found))] == [d.tolist() for d in documents]
    assert IndexedTokens(folder / "b").num_documents == len(lengths)
    assert IndexedTokens(folder / "b").num_tokens == sum(lengths)
