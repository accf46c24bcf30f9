"""From raw text to two trainers: prepare, search, constrain, export, and count what is drawn."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools import preprocess, train_tokenizer
from fastmix_mega.cli import main as cli
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.mixture.file import read_mixture
from tests.launch import run_config

pytestmark = pytest.mark.distributed
NAMES = ("letters", "digits", "words")


def write_corpora(directory: Path) -> dict[str, str]:
    """Raw text to token files with our tools; returns prefixes by name."""
    random = np.random.default_rng(0)
    alphabets = {
        "letters": list("abcdefgh"),
        "digits": list("0123456789"),
        "words": ["the", "model", "learns", "from", "data", "mixture"],
    }
    alphabets["target"] = alphabets["words"]
    for name, alphabet in alphabets.items():
        rows = 60 if name == "target" else 250
        texts = [" ".join(random.choice(alphabet, 80)) for _ in range(rows)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (directory / f"{name}.jsonl").write_text(lines)
    files = [str(directory / f"{name}.jsonl") for name in alphabets]
    model = str(directory / "tokenizer.model")
    assert train_tokenizer.main([*files, "--vocab-size", "300", "--output", model]) == 0
    prefixes = {name: str(directory / f"{name}_tokens") for name in alphabets}
    for name, file in zip(alphabets, files, strict=True):
        words = [file, "--tokenizer", model, "--output-prefix", prefixes[name]]
        assert preprocess.main(words) == 0
    return prefixes


def megatron_draws(arguments: Path, samples: int, tokenizer: Path) -> dict[str, int]:
    """How many samples megatron-core's builder takes from every prefix."""
    from megatron.core.datasets.blended_megatron_dataset_builder import (
        BlendedMegatronDatasetBuilder,
    )
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import get_blend_from_list
    from megatron.core.tokenizers import MegatronTokenizer

    blend = get_blend_from_list(arguments.read_text().split())
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=32,
        blend=blend,
        split="1,0,0",
        tokenizer=MegatronTokenizer.from_pretrained(
            str(tokenizer), metadata_path={"library": "sentencepiece"}
        ),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
    )
    builder = BlendedMegatronDatasetBuilder(
        GPTDataset, [samples, 0, 0], partial(bool, True), config
    )
    train = builder.build()[0]
    # It rounds every source's samples up.
    assert samples <= len(train) < samples + len(blend[0])
    assert train[0]["tokens"].shape == (32,)
    counts = np.bincount(train.dataset_index, minlength=len(blend[0]))
    return dict(zip(blend[0], counts.tolist(), strict=True))


def test_from_raw_text_to_two_trainers(tmp_path: Path, settings: dict[str, Any]) -> None:
    prefixes = write_corpora(tmp_path)
    settings |= {
        "tokenizer": str(tmp_path / "tokenizer.model"),
        "sources": [{"name": name, "prefix": prefixes[name]} for name in NAMES],
        "targets": [{"name": "target", "prefix": prefixes["target"]}],
    }
    limits = {
        "budget_tokens": 200_000,
        "max_epochs": 4,
        "sources": {"digits": {"min": 0.3}},
    }
    search = settings | {"search": settings["search"] | {"constraints": limits, "step": 0.8}}
    searched = run_config("search", search, tmp_path / "search")
    mixture = read_mixture(searched / "mixture.json")
    found = {source.name: source.weight for source in mixture.sources}
    assert found["words"] > found["letters"]
    # The mean of mixtures that are all at the limit or, early in the run, still above it.
    assert 0.3 - 1e-9 <= found["digits"] < 0.31
    free = mixture.search["unconstrained"]
    assert free["digits"] < 0.3
    gains = {source.name: source.gain for source in mixture.sources}
    assert mixture.search["predicted_cost_of_constraints"] == pytest.approx(
        sum((free[name] - found[name]) * gains[name] for name in NAMES)
    )

    # A larger run needs more of what is scarce, so that the export limits the shares once more.
    tokens = IndexedTokens(prefixes["words"]).num_tokens
    file = tmp_path / "limits.yaml"
    file.write_text(f"sources: {{words: {{max_epochs: 2}}}}\nbudget_tokens: {10 * tokens}\n")
    for to, name in (("megatron", "blend.txt"), ("fastmix", "final.json")):
        words = ["export", str(searched), "--to", to, "--output", str(tmp_path / name)]
        assert cli.main([*words, "--constraints", str(file)]) == 0
    wanted = {
        source.name: source.weight for source in read_mixture(tmp_path / "final.json").sources
    }
    assert wanted["words"] == pytest.approx(0.2)

    drawn = megatron_draws(tmp_path / "blend.txt", 5000, tmp_path / "tokenizer.model")
    for name in NAMES:
        assert drawn[prefixes[name]] == pytest.approx(5000 * wanted[name], abs=2)

    settings["mixture"] = str(tmp_path / "final.json")
    settings["train"] |= {"steps": 60, "global_batch": 64, "micro_batch": 32}
    trained = run_config("train", settings, tmp_path / "train")
    rows = json.loads((trained / "shares.json").read_text())
    assert [row["source"] for row in rows] == list(NAMES)
    assert sum(row["samples"] for row in rows) == 60 * 64
    for row in rows:
        assert row["requested"] == pytest.approx(wanted[row["source"]])
        assert abs(row["observed"] - row["requested"]) < 0.005
