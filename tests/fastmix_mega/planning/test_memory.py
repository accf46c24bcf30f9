"""The plan's memory against what torch allocates in real processes, and against the real model."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.plan_memory import measure_in_processes
from fastmix_mega.config.sections import ParallelSection
from fastmix_mega.model.presets import PRESETS, ModelShape
from fastmix_mega.planning.memory import stage_parameters

SEVEN_BILLION = ModelShape(*PRESETS["7B"], vocab_size=32000, tie_embeddings=False)

CASES: dict[str, tuple[int, str, dict[str, Any]]] = {
    "one process": (1, "search", {}),
    "surface": (1, "search", {"search": {"answer": "surface"}}),
    "long": (1, "search", {"train": {"seq_length": 1024}}),
    "recompute": (1, "train", {"train": {"seq_length": 1024, "recompute": "full"}}),
    "dp2-bf16": (2, "search", {"precision": "bf16"}),
    "zero2": (2, "search", {"parallel": {"zero": 2}}),
    "tp2-sp": (2, "train", {"parallel": {"tensor": 2, "sequence": True}}),
    "pp2": (2, "search", {"parallel": {"pipeline": 2}}),
}

ATTEMPTS = 4


@pytest.mark.distributed
@pytest.mark.parametrize("name", CASES)
def test_prediction_is_within_a_tenth_of_what_is_measured(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    processes, mode, changes = CASES[name]
    sizes = {"layers": 4, "hidden_size": 256, "attention_heads": 8, "key_value_heads": 4}
    settings["model"] = {**sizes, "ffn_size": 768, "vocab_size": 8192}
    settings["train"] |= {"micro_batch": 2, "global_batch": 8, "seq_length": 256, "steps": 4}
    settings["train"]["schedule"]["warmup"] = 1
    settings["search"] |= {"target_batch": 4, "warmup": 1, "every": 1}
    for key, value in changes.items():
        settings[key] = (
            {**settings[key], **value} if key in settings and isinstance(value, dict) else value
        )
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))

    # gloo's threads free memory unseen, at their own time: what is measured is an upper bound.
    for _ in range(ATTEMPTS):
        found = measure_in_processes(str(path), processes, mode, [])
        assert len(found["peaks"]) == processes
        if max(found["peaks"]) <= found["predicted"] / 0.9:
            break
    assert found["predicted"] == pytest.approx(max(found["peaks"]), rel=0.1), found


def test_stages_hold_the_whole_model_once() -> None:
    assert stage_parameters(SEVEN_BILLION, ParallelSection(), 0) == SEVEN_BILLION.parameters
    for pipeline in (2, 8, 32):
        layout = ParallelSection(pipeline=pipeline)
        stages = [stage_parameters(SEVEN_BILLION, layout, stage) for stage in range(pipeline)]
        assert sum(stages) == SEVEN_BILLION.parameters


def test_tied_embedding_stands_on_both_ends() -> None:
    tied = ModelShape(*PRESETS["7B"], vocab_size=32000, tie_embeddings=True)
    layout = ParallelSection(pipeline=2)
    both = sum(stage_parameters(tied, layout, stage) for stage in range(2))
    assert both == tied.parameters + 32000 * 4096


def test_tensor_parallel_processes_repeat_only_the_norms() -> None:
    each = stage_parameters(SEVEN_BILLION, ParallelSection(tensor=4), 0)
    norms = (2 * 32 + 1) * 4096
    assert 4 * (each - norms) == SEVEN_BILLION.parameters - norms
