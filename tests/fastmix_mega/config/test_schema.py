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
        ("train", "steps", 0, "train.steps: must be above 0"),
        ("parallel", "zero", 0, "parallel.zero: must be 1, 2 or 3"),
        ("search", "exploration", 1.5, "search.exploration: must be at most 1"),
        ("search", "step", "nan", "search.step: must be a finite number"),
        ("model", "prest", "1M", "model.prest: unknown key; did you mean 'preset'"),
        ("parallel", "sequence", True, "parallel.sequence needs parallel.tensor > 1"),
        ("guards", "hang_minutes", 30, "guards.hang_minutes (30"),
        ("guards", "max_doubtful", 2, "guards.max_doubtful: must be at most 1"),
        ("train", "steps", True, "train.steps: must be a number, not true or false"),
        ("train", "seq_length", 1, "train.seq_length: must be at least 2"),
        ("train", "schedule", {"kind": "cosin"}, "kind: must be .*; did you mean 'cosine'"),
        ("train", "schedule", 3, "train.schedule: must hold `key: value` lines: decay, final, "),
        ("log", "wandb", "ofline", "did you mean 'offline'"),
    ],
)
def test_mistakes_are_named(
    settings: dict[str, Any], section: str, key: str, value: Any, message: str
) -> None:
    settings.setdefault(section, {})[key] = value
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        parse_config(settings)


def test_sources_in_plain_words(settings: dict[str, Any]) -> None:
    """No word of the schema's own: neither its patterns nor its classes."""
    settings["sources"][0]["name"] = "a b"
    settings["sources"][1]["prefix"] = ["x/y", "x//y"]
    settings["targets"][0] = "near"
    with pytest.raises(UserError) as error:
        parse_config(settings)
    shown = str(error.value)
    assert "sources.0.name: letters, digits and . _ + - only (given: 'a b')" in shown
    assert "sources.1.prefix: x/y stands twice; its text would count double" in shown
    assert "targets.0: must hold `key: value` lines: name, prefix, weight" in shown
    assert not any(word in shown for word in ("^[", "instance", "SourceConfig", "Input"))


def test_quantities_with_units(settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    limits = {"budget_tokens": "2T", "max_epochs": 4}
    settings["search"]["constraints"] = limits
    path.write_text(yaml.safe_dump(settings) + "stages: [{name: a, from_tokens: 1e3, mixture: b}]")
    config = load_config(path, ["train.steps=1.5k", "search.every=1e1", "seed=3"])
    assert (config.train.steps, config.search.every) == (1500, 10)
    assert config.search.constraints is not None
    assert config.search.constraints.budget_tokens == 2 * 10**12
    assert config.stages[0].from_tokens == 1000


def test_paths_are_expanded(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/scratch")
    settings |= {"run_dir": "~/x", "mixture": "$DATA/mixture.json"}
    settings["sources"][0]["prefix"] = ["$DATA/a", "~/b"]
    config = parse_config(settings)
    assert (config.run_dir, config.mixture) == ("/home/me/x", "/scratch/mixture.json")
    assert config.sources[0].prefixes == ["/scratch/a", "/home/me/b"]
    with pytest.raises(UserError, match="run_dir: '\\$NOT_SET/x' needs the environment variable"):
        parse_config(settings | {"run_dir": "$NOT_SET/x"})


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
        ("a: [1\n", r"is not valid YAML: line 2, column 1: expected ',' or '\]'"),
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
