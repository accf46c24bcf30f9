"""`method: fastmix`: where a search begins, when it scores, and what it says of its answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.configuration import parse_config
from fastmix_mega.data.run_inputs import open_inputs
from fastmix_mega.errors import UserError
from fastmix_mega.methods.base import OpenedData
from fastmix_mega.methods.fastmix import FastMix
from fastmix_mega.methods.registry import method_of
from fastmix_mega.methods.start import bigram_mixture, search_start
from fastmix_mega.mixture.file import read_mixture
from tests.launch import run_config


def test_when_the_search_begins_with_bigrams(
    settings: dict[str, Any], chats: dict[str, Any]
) -> None:
    def begins(given: dict[str, Any]) -> bool:
        method = method_of(parse_config(given))
        inputs = open_inputs(method.config)
        data = OpenedData(inputs.sources, inputs.targets, inputs.tokenizer.sha256)
        return any("that bigram statistics suggest" in fact for fact in method.preview(data).facts)

    def with_initial(given: dict[str, Any], initial: str, **more: Any) -> dict[str, Any]:
        return given | {"search": given["search"] | {"initial": initial}} | more

    assert begins(with_initial(settings, "auto"))
    assert begins(with_initial(settings, "bigram"))
    assert not begins(with_initial(settings, "uniform"))
    assert not begins(with_initial(settings, "auto", method="reference"))
    assert not begins(with_initial(chats, "auto"))
    with pytest.raises(UserError, match="conversations"):
        begins(with_initial(chats, "bigram"))
    with pytest.raises(UserError, match="method: fastmix"):
        begins(with_initial(settings, "bigram", method="odm"))


def test_after_bigrams_the_last_half_is_scored(settings: dict[str, Any]) -> None:
    settings["train"]["steps"] = 100

    def first(from_bigrams: bool, **given: int) -> int:
        search = {"every": 4, "target_batch": 6, **given}
        method = FastMix(parse_config(settings | {"search": search}))
        warmup = method.config.search.warmup_steps(100 if from_bigrams else None)
        schedule = method.schedule(warmup)
        return next(step for step in range(100) if schedule.starts_window(step))

    assert first(from_bigrams=True) == 50
    assert first(from_bigrams=False) == 24
    assert first(from_bigrams=True, warmup=6) == first(from_bigrams=False, warmup=6) == 6


def test_limits_hold_for_the_first_mixture(settings: dict[str, Any]) -> None:
    settings["search"] |= {
        "initial": "bigram",
        "constraints": {"sources": {"beta": {"max": 0.3}}},
    }
    config = parse_config(settings)
    inputs = open_inputs(config)
    bigrams = bigram_mixture(config, inputs)
    beta = config.source_names.index("beta")
    assert bigrams[beta] > 0.3
    data = OpenedData(inputs.sources, inputs.targets, inputs.tokenizer.sha256)
    start = search_start(config, data, bigrams)
    assert start.initial[beta] == pytest.approx(0.3)
    assert start.from_bigrams


@pytest.mark.distributed
def test_a_search_on_two_processes_begins_with_bigrams(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings["search"] |= {"initial": "auto", "warmup": None}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert cli.main(["check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "bigram statistics" in shown
    assert "3 outer steps, the first after step 12 of 24" in shown
    assert cli.main(["check", str(path), "train.steps=6"]) == 2
    assert "train at least 8 steps" in capsys.readouterr().out
    assert cli.main(["check", str(path), "train.steps=8"]) == 0
    assert cli.main(["check", str(path), "search.initial=uniform"]) == 2
    assert "train at least 28 steps" in capsys.readouterr().out

    config = parse_config(settings)
    inputs = open_inputs(config)
    wanted = bigram_mixture(config, inputs)
    run = run_config("search", settings, tmp_path / "run", processes=2)
    mixture = read_mixture(run / "mixture.json")
    begun = mixture.search["first_mixture"]
    np.testing.assert_allclose([begun[name] for name in config.source_names], wanted)
    first = json.loads((run / "history.jsonl").read_text().splitlines()[0])
    # Nothing is scored before the last half.
    assert first["step"] == config.train.steps // 2 + config.search.every
    # The distribution that the first window was drawn from: half of it is uniform.
    np.testing.assert_allclose(first["sampling"], 0.5 * wanted + 0.5 / len(wanted), rtol=1e-12)
