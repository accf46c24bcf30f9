from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some

from fastmix_mega.config.schema import Config
from fastmix_mega.configuration import load_config, parse_config
from fastmix_mega.errors import UserError


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "setps", 3, "train.setps: unknown key; did you mean 'steps'"),
        ("train", "steps", 0, "train.steps: Input should be greater than 0"),
        ("parallel", "zero", 0, "parallel.zero: Input should be 1, 2 or 3"),
        ("search", "exploration", 1.5, "search.exploration: Input should be less than"),
        ("search", "step", "nan", "search.step: Input should be a finite number"),
        ("model", "prest", "1M", "model.prest: unknown key; did you mean 'preset'"),
        ("parallel", "sequence", True, "parallel.sequence needs parallel.tensor > 1"),
        ("guards", "hang_minutes", 30, "guards.hang_minutes (30"),
        ("guards", "max_doubtful", 2, "guards.max_doubtful: Input should be less than"),
    ],
)
def test_mistakes_are_named(
    settings: dict[str, Any], section: str, key: str, value: Any, message: str
) -> None:
    settings.setdefault(section, {})[key] = value
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        parse_config(settings)


def test_all_mistakes_at_once(settings: dict[str, Any]) -> None:
    settings["seeed"] = 1
    settings["targets"][1]["name"] = "near"
    del settings["train"]["steps"]
    with pytest.raises(UserError) as error:
        parse_config(settings)
    lines = str(error.value).split("\n")
    assert lines[0].endswith("3 mistake(s)")
    assert any("did you mean 'seed'" in line for line in lines)
    assert any("'near' is used twice" in line for line in lines)
    assert any("train.steps: missing" in line for line in lines)


def test_overrides(settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(settings))
    changes = ["train.steps=5", "train.schedule.peak=1e-4", "targets.1.weight=3", "model.layers=3"]
    config = load_config(path, changes)
    assert (config.train.steps, config.model.layers) == (5, 3)
    assert config.train.schedule.peak == 1e-4
    assert config.targets[1].weight == 3
    for override, message in (
        ("train.steps", "must look like"),
        ("train.setps=1", "did you mean 'steps'"),
        ("targets.7.weight=1", "a list of 2"),
        ("seed.x=1", "has no parts"),
        ("train.steps=[", "is not valid YAML"),
    ):
        with pytest.raises(UserError, match=message):
            load_config(path, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", r"'a' stands twice \(line 2\)"),
        ("a: [1\n", "is not valid YAML"),
        ("- 1\n", "must hold `key: value` lines"),
        ("a: !!python/object/apply:os.system ['true']\n", "is not valid YAML"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_config(tmp_path / "none.yaml")


def test_resolved_configuration_reads_back(settings: dict[str, Any]) -> None:
    config = parse_config(settings)
    assert parse_config(yaml.safe_load(config.to_yaml())) == config


def test_fingerprint_is_of_what_changes_results(settings: dict[str, Any]) -> None:
    base = parse_config(settings).fingerprint()
    assert parse_config(settings | {"run_dir": "elsewhere"}).fingerprint() == base
    assert parse_config(settings | {"seed": 8}).fingerprint() != base


json_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner),
    max_leaves=8,
)


@given(some.sampled_from(sorted(Config.model_fields)), json_values)
@hypothesis_settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_value_is_valid_or_a_clear_error(
    settings: dict[str, Any], key: str, value: Any
) -> None:
    message = ""
    try:
        parse_config(settings | {key: value})
    except UserError as error:
        message = str(error)
    assert not message or key in message
