"""A run folder that already holds a run: what may change, and what that does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastmix_mega.checkpoint.manifest import CheckpointManifest, FileRecord
from fastmix_mega.configuration import parse_config
from fastmix_mega.planning.check import Findings, check
from fastmix_mega.training.engine.learning_rate import learning_rate
from fastmix_mega.training.identity import record_run


def made(settings: dict[str, Any], steps: int) -> None:
    """The settings' run folder after so many steps."""
    config = parse_config(settings)
    record_run(config, "search")
    (Path(config.run_dir) / "checkpoints" / f"step_{steps}").mkdir(parents=True)


def allowed(settings: dict[str, Any], *names: str) -> Findings:
    return check(parse_config(settings), 1, "search", names)


def test_both_learning_rates_are_told(settings: dict[str, Any]) -> None:
    made(settings, 20)
    before = parse_config(settings).train
    settings["train"] |= {"steps": 200}
    now = parse_config(settings).train
    shown = "\n".join(allowed(settings, "train.steps").warnings)
    old = learning_rate(before.schedule, 20, before.steps)
    new = learning_rate(now.schedule, 20, now.steps)
    assert new > 2 * old
    assert (
        f"goes on at {new:.3g} after step 20, where the run's own schedule had {old:.3g}" in shown
    )

    # A constant rate has nothing to tell.
    settings["train"] |= {"steps": 24, "schedule": {"kind": "constant", "warmup": 3}}
    settings["run_dir"] += "-constant"
    made(settings, 20)
    settings["train"] |= {"steps": 200}
    assert "learning rate" not in "\n".join(allowed(settings, "train.steps").warnings)


def test_a_finished_run_that_goes_on(settings: dict[str, Any]) -> None:
    made(settings, 24)
    settings["train"] |= {"steps": 200}
    shown = "\n".join(allowed(settings, "train.steps").warnings)
    assert "the run was finished: its learning rate had come down to 0.0001 at step 24" in shown


def test_fewer_steps_than_were_made(settings: dict[str, Any]) -> None:
    made(settings, 20)
    settings["train"] |= {"steps": 19}
    shown = "\n".join(allowed(settings, "train.steps").mistakes)
    assert "train.steps: 19, but the run in" in shown
    assert "has made 20 steps" in shown
    settings["train"] |= {"steps": 20}
    assert not allowed(settings, "train.steps").mistakes


@pytest.mark.parametrize(
    ("name", "hint"),
    [("train.step", "did you mean train.steps?"), ("stepps", ""), ("dat", "")],
)
def test_a_misspelt_name(settings: dict[str, Any], name: str, hint: str) -> None:
    made(settings, 20)
    settings["train"] |= {"steps": 30}
    shown = "\n".join(allowed(settings, name).mistakes)
    assert f"--allow-changed {name}: there is no such key" in shown
    assert hint in shown


@pytest.mark.parametrize(
    "name", ["train.steps", "sources.0.prefix", "seed", "mixture.alpha", "data:/x/y"]
)
def test_a_name_that_does_not_differ_is_fine(settings: dict[str, Any], name: str) -> None:
    made(settings, 20)
    assert not allowed(settings, name).mistakes


def test_a_clash_tells_the_first_differences(settings: dict[str, Any]) -> None:
    made(settings, 20)
    settings["seed"] = 9
    settings["train"] |= {"steps": 30, "seq_length": 8, "global_batch": 4}
    settings["search"] |= {"every": 2, "warmup": 2, "target_batch": 2}
    (shown,) = allowed(settings).mistakes
    assert shown.count("--allow-changed") == 4
    assert "and 3 more differences: " in shown


def test_another_layout_than_that_of_the_checkpoint(settings: dict[str, Any]) -> None:
    """Told where it can be changed, refused where it cannot."""
    made(settings, 20)
    checkpoints = Path(settings["run_dir"]) / "checkpoints"
    (checkpoints / "latest").write_text("step_20\n")
    config = parse_config(settings)
    record = FileRecord(bytes=1, sha256="0" * 64)
    CheckpointManifest(
        step=20,
        world_size=2,
        layout=config.parallel.sizes(2),
        versions={},
        files={"a": record, "b": record},
    ).write(checkpoints / "step_20")
    assert "another layout" not in "\n".join(check(config, 2).facts)
    found = check(config, 1)
    assert "goes on from step_20 at another layout: {'data': 2," in "\n".join(found.facts)
    assert not found.mistakes
    settings["parallel"] = {"zero": 3}
    mistakes = "\n".join(check(parse_config(settings), 2, "train").mistakes)
    assert "run_dir: step_20: a run with ZeRO stage 3 continues on the same layout only" in mistakes
