"""Blends made small after public ones: those with a known fault, and sound ones.

Written from what their papers, repositories and issues say of them; sizes and weights are theirs or
of their order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from fastmix_mega.export.units import Size

T, B, M = 10**12, 10**9, 10**6


@dataclass(frozen=True)
class Public:
    text: str
    budget: int
    rules: frozenset[tuple[str, str]]
    """(harm, rule) of what must be found, and nothing worse than a note beside it."""
    sizes: dict[str, Size]
    seq_length: int = 4096
    intended: dict[str, float] | None = None


def public(
    content: Any, budget: int, *rules: tuple[str, str], sizes: Any = None, **more: Any
) -> Public:
    text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
    return Public(text, budget, frozenset(rules), sizes or {}, **more)


def nemotron(*rows: tuple[Any, ...], text_field: str | None = "text", **more: Any) -> str:
    """(name, weight) rows; a row without weight has none in the file."""
    datasets = []
    for name, *weight in rows:
        entry = {"name": name, "path": f"hf://nvidia/{name}"}
        if text_field:
            entry["text_field"] = text_field
        datasets.append(entry | ({"weight": weight[0]} if weight else {}))
    return json.dumps(more | {"datasets": datasets})


def metadataset(**train: Any) -> dict[str, Any]:
    head = {"__module__": "megatron.energon", "__class__": "MetadatasetV2"}
    return head | {"splits": {"train": train}}


PILE_REGMIX = {
    "pile_cc": 0.87,
    "pubmed_central": 0.003,
    "stackexchange": 0.05,
    "wikipedia_en": 0.016,
    "uspto": 0.002,
    "freelaw": 0.001,
    "gutenberg": 0.008,
    "hackernews": 0.05,
}
PILE_TOKENS = {
    "pile_cc": Size(60 * B),
    "pubmed_central": Size(25 * B),
    "stackexchange": Size(9 * B),
    "wikipedia_en": Size(4 * B),
    "uspto": Size(5 * B),
    "freelaw": Size(13 * B),
    "gutenberg": Size(3 * B),
    "hackernews": Size(1 * B),
}
HARRIER = {"web": 0.6, "code": 0.3, "math": 0.1, "c04q0": 2.158e-6}

FAULTY: dict[str, Public] = {
    # Nemotron, issue 248: a published weight meant thousands of epochs of a small data set.
    "nemotron_thousands_of_epochs": public(
        nemotron(("crawl-high", 60.0), ("code", 30.0), ("sft-general", 9.75), ("textbook", 0.25)),
        20 * T,
        ("wrong", "epochs"),
        sizes={
            "crawl-high": Size(9 * T),
            "code": Size(3 * T),
            "sft-general": Size(2 * T),
            "textbook": Size(12 * M),
        },
    ),
    # Nemotron 3 Ultra, phase 1: 19.1 points of the mixture are released as metadata only.
    "nemotron_missing_categories": public(
        nemotron(
            ("syn-crawl-high", 50.0),
            ("math", 20.0),
            ("stem-sft", 10.9),
            _missing_categories={
                "code": {"weight": 14.0},
                "nemotron-cc-code": {"weight": 2.1},
                "academic": {"weight": 1.6},
                "crawl++": {"weight": 1.4},
            },
        ),
        T,
        ("wrong", "metadata"),
        sizes={n: Size(T) for n in ("syn-crawl-high", "math", "stem-sft")},
    ),
    # Nemotron, issue 78: the fine-tuning recipe's weights are metadata.
    "nemotron_fine_tuning_weights": public(
        nemotron(("chat", 2.0), ("swe", 1.0), ("agentic", 0.5), text_field=None),
        B,
        ("wrong", "metadata"),
        sizes={n: Size(B) for n in ("chat", "swe", "agentic")},
    ),
    # Nemotron 3 Nano's raw blend: every weight is the default.
    "nemotron_default_weights": public(
        nemotron(("math-3", 1.0), ("math-4plus", 1.0), ("diverse-qa", 1.0)),
        100 * B,
        ("warning", "metadata"),
        sizes={"math-3": Size(80 * B), "math-4plus": Size(52 * B), "diverse-qa": Size(600 * B)},
    ),
    # Some weights forgotten among percentages.
    "nemotron_forgotten_weight": public(
        nemotron(("crawl", 70.0), ("math", 29.0), ("wiki",)),
        T,
        ("wrong", "metadata"),
        sizes={"crawl": Size(T), "math": Size(T), "wiki": Size(10 * B)},
    ),
    # Energon, issue 266: one leaf twice.
    "energon_leaf_twice": public(
        metadataset(
            blend=[
                {"weight": 0.5, "path": "s3://team/web"},
                {"weight": 0.3, "path": "s3://team/code"},
                {"weight": 0.2, "path": "s3://team/web"},
            ]
        ),
        10 * B,
        ("wrong", "twice"),
        sizes={"web": Size(60 * B, 60 * M), "code": Size(40 * B, 40 * M)},
    ),
    # Megatron-LM, issue 705: weights of .999 and .001 for a short run.
    "megatron_extreme_weights": public(
        "0.999 s3://team/large 0.001 s3://team/tiny",
        2 * M,
        ("wrong", "rounding"),
        sizes={"s3://team/large": Size(B), "s3://team/tiny": Size(B)},
    ),
    # RegMix, issue 10: a category of less than 0.1% in a proxy run of 1B tokens in 512 batches.
    "regmix_rounded_to_nothing": public(
        {"train": {"web": 0.9, "books": 0.0999, "legal": 0.0001}},
        10 * M,
        ("wrong", "rounding"),
        sizes={"web": Size(B), "books": Size(B), "legal": Size(B)},
    ),
    # Marin, pull request 8373: eight cells of a mixture are less than one sequence of a block.
    "levanter_block_too_small": public(
        {"data": {"train_weights": HARRIER, "mixture_block_size": 49152}},
        18 * T,
        ("wrong", "rounding"),
        sizes={n: Size(20 * T) for n in HARRIER},
    ),
    # Megatron-Bridge, issue 3968: 444 prefixes for training and validation.
    "bridge_too_many_prefixes": public(
        json.dumps({"blend": [[f"s3://team/part_{n}" for n in range(444)], [1 / 444] * 444]}),
        T,
        ("warning", "too many files"),
        sizes={f"s3://team/part_{n}": Size(10 * B) for n in range(444)},
    ),
    # open-instruct's own warning: "1" is one row.
    "open_instruct_one_row": public(
        {"dataset_mixer_list": ["ai2/tulu", "1", "ai2/math", "1"]},
        300 * M,
        ("wrong", "rounding"),
        sizes={"ai2/tulu": Size(500 * M, 900_000), "ai2/math": Size(100 * M, 150_000)},
    ),
    # Axolotl, issue 1508: weights in a version that drops them.
    "axolotl_weights_dropped": public(
        {
            "datasets": [
                {"path": "vicgalle/alpaca-gpt4", "type": "alpaca", "weight": 0.8},
                {"path": "team/b", "type": "chat_template", "weight": 0.1},
            ]
        },
        50 * M,
        ("wrong", "metadata"),
        sizes={"vicgalle/alpaca-gpt4": Size(50 * M, 50_000), "team/b": Size(50 * M, 50_000)},
    ),
    # LLaMA-Factory, issue 8814: undersampling ends with the smallest data set.
    "llama_factory_ends_early": public(
        {"dataset": "chat,code", "mix_strategy": "interleave_under", "interleave_probs": "0.5,0.5"},
        300 * M,
        ("wrong", "ends early"),
        sizes={"chat": Size(900 * M, 10**6), "code": Size(40 * M, 40_000)},
    ),
    # ms-swift, issue 4996: shares of tokens were meant, rows of very different length are drawn.
    "ms_swift_rows_for_tokens": public(
        {
            "dataset": ["chat", "long-context"],
            "interleave_prob": [0.9, 0.1],
            "stopping_strategy": "all_exhausted",
        },
        B,
        ("wrong", "units"),
        sizes={"chat": Size(600 * M, 10**6), "long-context": Size(2 * B, 100_000)},
        intended={"chat": 0.9, "long-context": 0.1},
    ),
    # Automodel's domains in another order than the blend, which it refuses.
    "automodel_order": public(
        {
            "dataset": {"paths": ["0.5", "s3://t/b", "0.5", "s3://t/a"]},
            "domain_mixture": {
                "domains": [
                    {"name": n, "sampling_weight": 1, "objective_weight": 1, "path": f"s3://t/{n}"}
                    for n in "ab"
                ]
            },
        },
        B,
        ("fails", "domains"),
        sizes={"a": Size(B), "b": Size(B)},
    ),
    # A nanotron schedule whose annealing begins after the end.
    "nanotron_stage_after_the_end": public(
        {
            "tokens": {
                "sequence_length": 4096,
                "micro_batch_size": 2,
                "batch_accumulation_per_replica": 2,
                "train_steps": 1000,
            },
            "parallelism": {"dp": 64},
            "data_stages": [
                {
                    "name": name,
                    "start_training_step": first,
                    "data": {
                        "dataset": {
                            "dataset_folder": ["s3://w", "s3://c"],
                            "dataset_weights": weights,
                        }
                    },
                }
                for name, first, weights in (("stable", 1, [0.8, 0.2]), ("decay", 1001, [0.5, 0.5]))
            ],
        },
        1000 * 4096 * 2 * 2 * 64,
        ("wrong", "schedule"),
        sizes={"s3://w": Size(10 * B), "s3://c": Size(10 * B)},
    ),
}

SOUND: dict[str, Public] = {
    "regmix_pile": public({"train": PILE_REGMIX}, 25 * B, sizes=PILE_TOKENS, seq_length=2048),
    # Marin's DCLM baseline: weights are trillions of tokens.
    "marin_dclm": public(
        {"data": {"train_weights": {"dclm": 3.8, "starcoder": 0.25, "proofpile": 0.055}}},
        4 * T,
        sizes={"dclm": Size(3800 * B), "starcoder": Size(250 * B), "proofpile": Size(55 * B)},
    ),
    # SmolLM3's kind of schedule in nanotron.
    "nanotron_stages": public(
        {
            "tokens": {
                "sequence_length": 4096,
                "micro_batch_size": 3,
                "batch_accumulation_per_replica": 1,
            },
            "parallelism": {"dp": 192},
            "data_stages": [
                {
                    "name": name,
                    "start_training_step": first,
                    "data": {
                        "dataset": {
                            "dataset_folder": ["s3://w", "s3://c", "s3://m"],
                            "dataset_weights": weights,
                        }
                    },
                }
                for name, first, weights in (
                    ("stable", 1, [0.85, 0.12, 0.03]),
                    ("stable2", 3_450_000, [0.75, 0.15, 0.1]),
                    ("decay", 4_200_000, [0.63, 0.24, 0.13]),
                )
            ],
        },
        11 * T,
        sizes={"s3://w": Size(8 * T), "s3://c": Size(2 * T), "s3://m": Size(T)},
    ),
    # OLMo-core's source mixture with its own limits.
    "olmo_core_mixture": public(
        {
            "sources": [
                {"source_name": "dclm", "target_ratio": 0.5, "paths": ["s3://ai2/dclm.npy"]},
                {"source_name": "code", "target_ratio": 0.3, "paths": ["s3://ai2/code.npy"]},
                {
                    "source_name": "wiki",
                    "target_ratio": 0.2,
                    "paths": ["s3://ai2/wiki.npy"],
                    "max_repetition_ratio": 2.0,
                },
            ]
        },
        100 * B,
        sizes={"dclm": Size(700 * B), "code": Size(80 * B), "wiki": Size(10 * B)},
    ),
    # Tulu 3: every data set once, as a proportion.
    "open_instruct_tulu": public(
        {"dataset_mixer_list": ["ai2/tulu-3-sft", "1.0", "ai2/persona-math", "1.0"]},
        B,
        sizes={"ai2/tulu-3-sft": Size(800 * M, 939_000), "ai2/persona-math": Size(M, 10_000)},
    ),
    "nemotron_sound": public(
        nemotron(("crawl", 60.0), ("code", 25.0), ("math", 15.0)),
        2 * T,
        sizes={"crawl": Size(3 * T), "code": Size(700 * B), "math": Size(200 * B)},
    ),
    "energon_sound": public(
        metadataset(
            blend=[{"weight": 0.6, "path": "s3://a/web"}, {"weight": 0.4, "path": "s3://a/code"}]
        ),
        10 * B,
        sizes={"web": Size(8 * B, 8 * M), "code": Size(9 * B, 9 * M)},
    ),
    "trl_fractions": public(
        {
            "datasets": [
                {"path": "team/chat", "split": "train", "fraction": 0.7},
                {"path": "team/code", "split": "train", "fraction": 0.3},
            ]
        },
        200 * M,
        sizes={"team/chat": Size(200 * M, 200_000), "team/code": Size(100 * M, 100_000)},
    ),
}
