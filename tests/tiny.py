"""Small real token files and a configuration over them: a search of about a second of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.tokenizer import Tokenizer

SOURCES = ("alpha", "beta", "gamma", "delta")


def write_corpora(directory: Path) -> None:
    """tokenizer.model, four sources and a target whose tokens are distributed like beta's."""
    words = Path(np.__file__).read_text().split("\n")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words),
        model_prefix=str(directory / "tokenizer"),
        vocab_size=300,
        minloglevel=2,
    )
    tokenizer = Tokenizer(directory / "tokenizer.model")
    random = np.random.default_rng(0)
    manifest = {
        "tokenizer_sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "eod": tokenizer.eod,
    }

    def write(name: str, first_token: int, documents: int) -> None:
        with IndexedWriter(directory / name, token_dtype(300), manifest) as writer:
            for _ in range(documents):
                body = first_token + random.integers(0, 120, 50)
                writer.add_document(np.append(body, tokenizer.eod))

    for number, name in enumerate(SOURCES):
        write(name, 3 + 50 * number, 100)
    write("target", 3 + 50, 30)
    write("other_target", 3 + 100, 30)
    write_quiz(directory / "quiz", manifest)


def write_quiz(prefix: Path, manifest: dict[str, Any]) -> None:
    """20 questions with three choices of different lengths; the right ones are like beta."""
    random = np.random.default_rng(1)
    fields = manifest | {"choices": 3}
    with IndexedWriter(prefix, token_dtype(300), fields, masked=True) as writer:
        for _ in range(20):
            asked = 3 + random.integers(0, 200, 5)
            for first in (53, 3, 103):
                answer = first + random.integers(0, 120, random.integers(1, 9))
                mask = np.repeat([0, 1], [len(asked), len(answer)])
                writer.add_document(np.concatenate((asked, answer)), mask)


def write_conversations(directory: Path) -> None:
    """`chat/NAME` for every source and target: 2 to 30 tokens, of which the last ones count."""
    tokenizer = Tokenizer(directory / "tokenizer.model")
    random = np.random.default_rng(1)
    manifest = {"tokenizer_sha256": tokenizer.sha256, "vocab_size": 300, "eod": tokenizer.eod}
    names = (*SOURCES, "target", "other_target")
    firsts = (*(3 + 50 * number for number in range(len(SOURCES))), 3 + 50, 3 + 100)
    for name, first in zip(names, firsts, strict=True):
        path = directory / "chat" / name
        with IndexedWriter(path, token_dtype(300), manifest, masked=True) as writer:
            for _ in range(200):
                prompt, answer = random.integers(1, 8), random.integers(1, 8 + first // 50)
                tokens = first + random.integers(0, 120, prompt + answer)
                mask = np.arange(len(tokens)) >= prompt
                # Two rounds, now and then: an answer in the middle.
                if random.random() < 0.3:
                    tokens, mask = np.tile(tokens, 2), np.tile(mask, 2)
                writer.add_document(np.append(tokens, tokenizer.eod), np.append(mask, 1))


def chat_settings(corpora: Path, run_dir: Path) -> dict[str, Any]:
    """As `tiny_settings`, over conversations."""
    settings = tiny_settings(corpora, run_dir)
    for entry in (*settings["sources"], *settings["targets"]):
        path = Path(entry["prefix"])
        entry["prefix"] = str(path.parent / "chat" / path.name)
    settings["train"]["seq_length"] = 32
    return settings


def tiny_settings(corpora: Path, run_dir: Path) -> dict[str, Any]:
    """Plain data for `parse_config`."""
    return {
        "run_dir": str(run_dir),
        "seed": 7,
        "tokenizer": str(corpora / "tokenizer.model"),
        "sources": [{"name": name, "prefix": str(corpora / name)} for name in SOURCES],
        "targets": [
            {"name": "near", "prefix": str(corpora / "target"), "weight": 2},
            {"name": "far", "prefix": str(corpora / "other_target")},
        ],
        "model": {"preset": "tiny"},
        "train": {
            "steps": 24,
            "global_batch": 8,
            "micro_batch": 2,
            "seq_length": 16,
            "schedule": {"warmup": 3, "peak": 1e-3},
            # Adam divides tiny gradients by their own size; without a larger epsilon it would
            # amplify fp32's rounding, and comparisons to 1e-5 would compare noise.
            "optimizer": {"epsilon": 1e-6},
        },
        "search": {
            "answer": "trajectory",
            "every": 4,
            "warmup": 4,
            "target_batch": 6,
            "score_tokens": 1.0,
            "initial": "uniform",
        },
        "log": {"every": 1, "wandb": "disabled"},
    }
