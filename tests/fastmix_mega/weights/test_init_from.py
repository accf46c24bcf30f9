"""A run that starts from another run's weights, whatever either's layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastmix_mega.checkpoint.io import load_tensors
from fastmix_mega.configuration import parse_config
from fastmix_mega.errors import UserError
from fastmix_mega.files import read_jsonl
from fastmix_mega.methods.registry import method_of
from fastmix_mega.mixture.file import read_mixture
from fastmix_mega.planning.check import check
from fastmix_mega.training import trainer as loop
from tests.launch import run_config

STILL = {"steps": 1, "schedule": {"peak": 1e-30, "warmup": 0}}
"""A run that leaves the weights as they are, bit for bit."""


def train_here(settings: dict[str, Any], run_dir: Path) -> Path:
    """On one process, this one."""
    loop.run(method_of(parse_config(settings | {"run_dir": str(run_dir)}), "train"))
    return run_dir


def stored(run_dir: Path, step: int) -> dict[str, Tensor]:
    """The weights of a run of one process, as DeepSpeed has written them."""
    path = run_dir / "checkpoints" / f"step_{step}" / "mp_rank_00_model_states.pt"
    found: dict[str, Tensor] = load_tensors(path)["module"]
    return found


def held_out(run_dir: Path) -> float:
    rows = [row["eval"]["unseen"] for row in read_jsonl(run_dir / "metrics.jsonl") if "eval" in row]
    return float(rows[-1])


def continued(settings: dict[str, Any], start: Path, **parallel: Any) -> dict[str, Any]:
    train = settings["train"] | STILL
    return settings | {"train": train, "init_from": str(start), "parallel": parallel}


@pytest.fixture
def base(settings: dict[str, Any], tmp_path: Path) -> Path:
    """A run of 6 steps on one process, evaluated at its end."""
    near = settings["targets"][0]
    settings["evaluation"] = {
        "sequences": 8,
        "sets": [{"name": "unseen", "prefix": near["prefix"]}],
    }
    settings["train"] |= {"steps": 6}
    return train_here(settings | {"checkpoint": {"every": 3}}, tmp_path / "base")


@pytest.mark.distributed
def test_any_layout_starts_from_any_other(
    settings: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    """One process -> tensor parallel -> pipeline -> one process: the same weights bit for bit."""
    tensor = run_config("train", continued(settings, base, tensor=2), tmp_path / "tensor", 2)
    stages = run_config("train", continued(settings, tensor, pipeline=2), tmp_path / "stages", 2)
    last = train_here(continued(settings, stages), tmp_path / "last")
    before, after = stored(base, 6), stored(last, 1)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    # And they are used: the held-out loss is what the first run ended with.
    for run_dir in (tensor, stages, last):
        assert held_out(run_dir) == pytest.approx(held_out(base), rel=1e-5)

    recorded = json.loads((last / "run.json").read_text())["init_from"]
    assert (recorded["kind"], recorded["step"]) == ("checkpoint", 1)
    assert recorded["path"] == str(stages / "checkpoints" / "step_1")
    assert read_mixture(last / "mixture.json").search["init_from"] == recorded

    # It goes on without what it started from, and keeps the record.
    shutil.rmtree(stages)
    longer = continued(settings, stages)
    longer["train"] = longer["train"] | {"steps": 2}
    train_here(longer, last)
    assert json.loads((last / "run.json").read_text())["init_from"] == recorded
    assert torch.equal(stored(last, 2)["output_layer.weight"], before["output_layer.weight"])


def test_one_checkpoint_can_be_named(settings: dict[str, Any], base: Path, tmp_path: Path) -> None:
    third = base / "checkpoints" / "step_3"
    settings["train"] |= {"steps": 6}
    run_dir = train_here(continued(settings, third), tmp_path / "again")
    name = "decoder.layers.1.mlp.linear_fc1.weight"
    assert torch.equal(stored(run_dir, 1)[name], stored(base, 3)[name])
    assert not torch.equal(stored(run_dir, 1)[name], stored(base, 6)[name])


def mistakes(settings: dict[str, Any]) -> str:
    return "\n".join(check(parse_config(settings), 1, "train").mistakes)


def test_mistakes_name_both_sides(settings: dict[str, Any], base: Path, tmp_path: Path) -> None:
    good = settings | {"init_from": str(base)}
    assert mistakes(good) == ""
    facts = check(parse_config(good), 1).facts
    assert f"starts from the weights in {base}/checkpoints/step_6" in facts
    assert "is no folder" in mistakes(settings | {"init_from": str(tmp_path / "none")})
    assert "holds no finished checkpoint" in mistakes(settings | {"init_from": str(tmp_path)})

    other = good | {"model": {"preset": "tiny", "layers": 4, "rotary_base": 5e5}}
    assert f"model.layers is 2 in {base}, but 4 here; set model.layers to 2" in mistakes(other)
    assert f"model.rotary_base is 10000.0 in {base}, but 500000.0 here" in mistakes(other)
    rows = mistakes(good | {"model": {"preset": "tiny", "vocab_size": 512}})
    assert f"model.vocab_size is 384 in {base}, but 512 here" in rows

    record = base / "run.json"
    there = json.loads(record.read_text())
    record.write_text(json.dumps(there | {"tokenizer": "0" * 64}))
    assert "was trained with another tokenizer" in mistakes(good)
    assert f"({settings['tokenizer']}, 000000000000... instead of" in mistakes(good)


def test_damage_is_noticed(settings: dict[str, Any], base: Path, tmp_path: Path) -> None:
    path = base / "checkpoints" / "step_6" / "mp_rank_00_model_states.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"mp_rank_00_model_states\.pt has another checksum"):
        train_here(continued(settings, base), tmp_path / "again")
