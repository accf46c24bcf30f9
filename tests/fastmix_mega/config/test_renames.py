"""Old names in a file keep working, with a note; keys that are gone are dropped or refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.config.renames import with_new_names
from fastmix_mega.configuration import load_config, parse_config
from fastmix_mega.errors import UserError
from fastmix_mega.training.identity import differences, record_run


def renamed(content: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    before = copy.deepcopy(content)
    found = with_new_names(content, "c.yaml", notes.append)
    assert content == before, "the given settings were changed"
    return found, notes


@pytest.mark.parametrize(
    ("section", "old", "new", "words"),
    [
        (
            "search",
            {"initial": "token_pairs", "every": 4},
            {"initial": "bigram", "every": 4},
            "c.yaml: search.initial: token_pairs is called bigram now",
        ),
        ("search", {"quick_start": False, "every": 4}, {"every": 4}, "search.quick_start"),
        ("model", {"experts": 1, "preset": "1M"}, {"preset": "1M"}, "model.experts"),
    ],
)
def test_old_names_are_noted(
    section: str, old: dict[str, Any], new: dict[str, Any], words: str
) -> None:
    found, (note,) = renamed({section: old, "seed": 1})
    assert found == {section: new, "seed": 1}
    assert words in note


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("search", "quick_start", True, "a search starts as with false"),
        ("model", "experts", 4, "mixture-of-experts proxies are not supported"),
    ],
)
def test_keys_that_are_gone_are_refused_where_they_ask_for_something(
    section: str, key: str, value: Any, reason: str
) -> None:
    with pytest.raises(UserError, match=f"{section}.{key} no longer exists: {reason}"):
        renamed({section: {key: value}})


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"search": None, "model": "1M"},
        {"search": {"initial": "uniform"}},
        {"search": {"initial": {"alpha": 1.0}}},
        {"search": {"initial": ["token_pairs"]}},
    ],
)
def test_other_settings_stay_as_they_are(content: dict[str, Any]) -> None:
    assert renamed(content) == (content, [])


def test_a_file_of_before_still_loads_and_says_the_new_names(
    settings: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings["search"] |= {"initial": "token_pairs", "quick_start": False}
    settings["model"]["experts"] = 1
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(settings))
    config = load_config(path)
    assert config.search.initial == "bigram"
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert all(line.startswith(f"note: {path}: ") for line in told)
    # One process of a run speaks for all.
    monkeypatch.setenv("RANK", "1")
    assert load_config(path) == config
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="no longer exists"):
        load_config(path, ["search.quick_start=true"])
    assert load_config(path, ["search.initial=token_pairs"]).search.initial == "bigram"


def test_a_run_of_before_is_the_same_run(settings: dict[str, Any]) -> None:
    """Its recorded configuration holds the old names."""
    settings["search"]["initial"] = "bigram"
    config = parse_config(settings)
    record_run(config, "search")
    run_dir = Path(config.run_dir)
    (run_dir / "checkpoints" / "step_5").mkdir(parents=True)
    recorded = yaml.safe_load((run_dir / "config.yaml").read_text())
    recorded["search"] |= {"initial": "token_pairs", "quick_start": False}
    recorded["model"]["experts"] = 1
    (run_dir / "config.yaml").write_text(yaml.safe_dump(recorded))
    assert differences(config, "search") == []
