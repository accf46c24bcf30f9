"""What is run on hostcuda and compared with the CPU: configurations by name."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.launch import CPU, HOST_CUDA, column, run_config
from tests.tiny import chat_settings, tiny_settings

STEPS = 12
SEQUENCE = {"tensor": 2, "sequence": True}
EVERYTHING = {"preset": "tiny", "tie_embeddings": True, "qkv_bias": True, "qk_norm": True}


@dataclass(frozen=True)
class Case:
    processes: int = 1
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the settings; sections are merged."""
    verb: str = "search"
    chat: bool = False
    """Conversations instead of text."""
    tolerance: float = 1e-5
    """Of losses and gradient norms, relative; the CPU's kernels differ in bf16."""
    scores: float = 1e-3
    """Of the mixture, absolute."""


BF16 = {"tolerance": 2e-2, "scores": 2e-2}

DAILY = {
    "one": Case(),
    "TP2 + sequence, bf16": Case(2, {"parallel": SEQUENCE, "precision": "bf16"}, **BF16),
    "DP2, ZeRO 2": Case(2, {"parallel": {"zero": 2}}),
    "PP2, tied, all parameters": Case(
        2, {"parallel": {"pipeline": 2}, "model": EVERYTHING, "search": {"scores": "all"}}
    ),
    "CP2, half of the tokens scored": Case(
        2, {"parallel": {"context": 2}, "search": {"score_tokens": 0.5}}
    ),
    "conversations, CP2": Case(2, {"parallel": {"context": 2}}, chat=True),
    "ZeRO 3, training": Case(2, {"parallel": {"zero": 3}}, "train"),
}
"""In every run of the tests."""

LONG = {
    "bf16": Case(1, {"precision": "bf16"}, **BF16),
    "DP2": Case(2),
    "DP2, bf16": Case(2, {"precision": "bf16"}, **BF16),
    "DP2, ZeRO 2, bf16": Case(2, {"parallel": {"zero": 2}, "precision": "bf16"}, **BF16),
    "TP2": Case(2, {"parallel": {"tensor": 2}}),
    "PP2, bf16": Case(2, {"parallel": {"pipeline": 2}, "precision": "bf16"}, **BF16),
    "TP2 + sequence x PP2": Case(4, {"parallel": SEQUENCE | {"pipeline": 2}}),
    "TP2 + sequence x CP2": Case(4, {"parallel": SEQUENCE | {"context": 2}}),
    "PP4, interleaved": Case(
        4,
        {
            "parallel": {"pipeline": 4, "interleave": 2},
            "model": {"preset": "tiny", "layers": 8},
        },
    ),
    "full recomputation": Case(1, {"train": {"recompute": "full"}}),
    "selective recomputation": Case(1, {"train": {"recompute": "selective"}}),
    "conversations": Case(chat=True),
    "conversations, TP2": Case(2, {"parallel": {"tensor": 2}}, chat=True),
    "minimax": Case(2, {"search": {"objective": "minimax"}}),
    "bigrams": Case(2, {"search": {"initial": "bigram", "warmup": None}}),
    "doremi": Case(1, {"method": "doremi"}),
    "odm": Case(1, {"method": "odm"}),
    "aioli": Case(1, {"method": "aioli"}),
    "doge": Case(1, {"method": "doge"}),
    "regmix": Case(2, {"method": "regmix", "regmix": {"runs": 4}}),
}
"""By `python -m tests.hostcuda.matrix`."""


def settings_of(case: Case, corpora: Path, directory: Path) -> dict[str, Any]:
    make = chat_settings if case.chat else tiny_settings
    settings = copy.deepcopy(make(corpora, directory))
    settings["train"]["steps"] = STEPS
    for key, value in case.changes.items():
        section = settings.get(key)
        merged = section | value if isinstance(section, dict) and key != "model" else value
        settings[key] = merged
    return settings


def differences(case: Case, corpora: Path, directory: Path) -> dict[str, float]:
    """Largest differences between hostcuda and the CPU: relative, of the mixture absolute."""
    settings = settings_of(case, corpora, directory)
    here, there = (
        run_config(case.verb, settings, directory / name, case.processes, machine=machine)
        for name, machine in (("cpu", CPU), ("hostcuda", HOST_CUDA))
    )
    found = {}
    for key in ("loss", "grad_norm"):
        if not (here / "metrics.jsonl").exists():
            continue  # The runs of a swarm have their own.
        cpu, cuda = (column(each, "metrics.jsonl", key) for each in (here, there))
        assert cpu.shape == cuda.shape
        found[key] = float(np.abs(cuda - cpu).max() / np.abs(cpu).max())
    found["mixture"] = max(abs(a - b) for a, b in zip(*map(_weights, (here, there)), strict=True))
    return found


def _weights(run_dir: Path) -> list[float]:
    from fastmix_mega.mixture.file import read_mixture

    return [source.weight for source in read_mixture(run_dir / "mixture.json").sources]


def problems(case: Case, found: dict[str, float]) -> list[str]:
    """Which differences are too large; empty if none is."""
    limits = {"loss": case.tolerance, "grad_norm": case.tolerance, "mixture": case.scores}
    return [f"{key}: {value:.1e}" for key, value in found.items() if not value <= limits[key]]
