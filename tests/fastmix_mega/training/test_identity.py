from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastmix_mega.configuration import parse_config
from fastmix_mega.planning.check import check
from fastmix_mega.training.identity import differences, record_run


def started(settings: dict[str, Any]) -> Path:
    config = parse_config(settings)
    record_run(config, "search")
    (Path(config.run_dir) / "checkpoints" / "step_5").mkdir(parents=True)
    return Path(config.run_dir)


def test_the_same_run_may_go_on(settings: dict[str, Any]) -> None:
    started(settings)
    other_log = settings | {"log": {"every": 3, "wandb": "disabled"}, "checkpoint": {"keep": 7}}
    assert differences(parse_config(other_log), "search") == []


def test_an_empty_or_unstarted_folder_is_free(settings: dict[str, Any]) -> None:
    record_run(parse_config(settings), "search")
    assert differences(parse_config(settings | {"seed": 99}), "train") == []


def test_differences_are_named(settings: dict[str, Any]) -> None:
    started(settings)
    settings["train"]["steps"] = 30
    found = [each.text for each in differences(parse_config(settings | {"seed": 99}), "train")]
    assert "seed is 7 there, 99 here" in found
    assert "train.steps is 24 there, 30 here" in found
    assert "fastmix search there, fastmix train here" in found
    shown = "\n".join(check(parse_config(settings), 1).mistakes)
    assert "holds another run: train.steps is 24 there, 30 here" in shown
    assert "Name another run_dir" in shown
    assert "--allow-changed train.steps" in shown


def test_changed_data_is_noticed(settings: dict[str, Any]) -> None:
    run_dir = started(settings)
    recorded = json.loads((run_dir / "run.json").read_text())
    prefix = settings["sources"][0]["prefix"]
    recorded["data"][prefix] = "0" * 64
    (run_dir / "run.json").write_text(json.dumps(recorded))
    (found,) = differences(parse_config(settings), "search")
    assert found.text == f"the data of {prefix} has changed"
    assert found.name == f"data:{prefix}"


def test_a_finished_run_without_checkpoint_is_kept(settings: dict[str, Any]) -> None:
    config = parse_config(settings)
    record_run(config, "search")
    (Path(config.run_dir) / "mixture.json").write_text("{}")
    (found,) = differences(config, "search")
    assert "finished run without a checkpoint" in found.text
    assert not found.can_be_allowed


def test_unreadable_records_are_no_licence_to_overwrite(settings: dict[str, Any]) -> None:
    run_dir = started(settings)
    (run_dir / "run.json").write_text("{torn")
    assert "no readable run.json" in str(differences(parse_config(settings), "search")[0])


def test_one_difference_can_be_allowed(settings: dict[str, Any]) -> None:
    started(settings)
    settings["train"]["steps"] = 30
    config = parse_config(settings | {"seed": 99})
    (left,) = check(config, 1, allowed=["train.steps"]).mistakes
    assert "seed is 7 there, 99 here" in left
    found = check(config, 1, allowed=["train.steps", "seed"])
    assert found.mistakes == []
    assert "allowed: train.steps is 24 there, 30 here" in found.warnings


def test_another_model_or_verb_is_never_allowed(settings: dict[str, Any]) -> None:
    started(settings)
    settings["model"]["tie_embeddings"] = True
    mistakes = check(
        parse_config(settings), 1, "train", allowed=["model.tie_embeddings", "verb"]
    ).mistakes
    (told,) = [text for text in mistakes if "holds another run" in text]
    assert "model.tie_embeddings is False there, True here" in told
    assert "fastmix search there, fastmix train here" in told


def test_another_tokenizer_is_noticed(settings: dict[str, Any]) -> None:
    run_dir = started(settings)
    recorded = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps(recorded | {"tokenizer": "0" * 64}))
    (found,) = differences(parse_config(settings), "search")
    assert found.name == "tokenizer"
