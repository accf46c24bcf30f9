"""A tiny search whose losses are known: its data and configuration, the same on every machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.tokenizer import Tokenizer

SOURCES = ("alpha", "beta", "gamma")
VOCABULARY = 256
DOCUMENTS, LENGTH = 60, 40
STEPS, HALF = 12, 6
EXPECTED = Path(__file__).with_name("expected.json")
TOLERANCE = {"fp32": 2e-4, "bf16": 2e-2}
"""Relative, of losses: kernels of other machines add in another order."""


def write_corpora(directory: Path) -> None:
    """A tokenizer, three sources, and a target that is like the second one."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = {"</s>": 0} | {f"t{number}": number for number in range(1, VOCABULARY)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t1"}
    path = directory / "tokenizer.json"
    path.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    tokenizer = Tokenizer(path)
    manifest = {
        "tokenizer_sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "eod": tokenizer.eod,
    }
    for number, name in enumerate((*SOURCES, "target")):
        first = 2 + 60 * (1 if name == "target" else number)
        # No generator of a library, whose numbers another version may change.
        places = np.arange(DOCUMENTS * LENGTH, dtype=np.uint64) + np.uint64(1 + number * 10**6)
        scattered = (places * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)) >> 40
        tokens = first + (scattered % np.uint64(120)).astype(np.int64)
        with IndexedWriter(directory / name, token_dtype(VOCABULARY), manifest) as writer:
            for document in tokens.reshape(DOCUMENTS, LENGTH):
                writer.add_document(np.append(document, tokenizer.eod))


def settings(directory: Path, run_dir: Path, **changes: Any) -> dict[str, Any]:
    """Plain data for `parse_config`."""
    return {
        "run_dir": str(run_dir),
        "seed": 3,
        "tokenizer": str(directory / "tokenizer.json"),
        "sources": [{"name": name, "prefix": str(directory / name)} for name in SOURCES],
        "targets": [{"name": "target", "prefix": str(directory / "target")}],
        "model": {"preset": "tiny"},
        "train": {
            "steps": STEPS,
            "global_batch": 8,
            "micro_batch": 1,
            "seq_length": 32,
            "schedule": {"warmup": 2, "peak": 1e-3},
            "optimizer": {"epsilon": 1e-6},
        },
        "search": {
            "every": 2,
            "warmup": 2,
            "target_batch": 8,
            "score_tokens": 1.0,
            "initial": "uniform",
            "answer": "trajectory",
        },
        "checkpoint": {"every": HALF, "keep": 9},
        "log": {"every": 1, "wandb": "disabled"},
    } | changes


def write_settings(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def expected_losses(precision: str) -> list[float]:
    """[steps] losses of one process on the CPU, as `expected.py` has stored them."""
    stored: dict[str, list[float]] = json.loads(EXPECTED.read_text())
    return stored[precision]
