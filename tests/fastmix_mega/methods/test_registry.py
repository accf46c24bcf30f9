"""A new method is one file and a line in the registry: everything else follows from these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.cli.reference_page import page
from fastmix_mega.configuration import load_config, parse_config
from fastmix_mega.errors import UserError
from fastmix_mega.methods.fixed import FixedMixture
from fastmix_mega.methods.registry import METHODS, method_of
from fastmix_mega.mixture.file import read_mixture
from tests.fastmix_mega.methods.resumed import searched_and_resumed
from tests.fastmix_mega.methods.sign_method import Sign


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, Sign.name, Sign)


def test_every_method_is_found_by_its_name(settings: dict[str, Any]) -> None:
    for name, method in METHODS.items():
        assert method.name == name
        found = method_of(parse_config(settings | {"method": name}))
        assert type(found) is method
        if method.Settings is not None:
            assert isinstance(found.settings, method.Settings)
    assert isinstance(method_of(parse_config(settings), "train"), FixedMixture)


def test_an_unknown_method_is_a_clear_error(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="method: no such method; did you mean 'aioli'"):
        parse_config(settings | {"method": "aiolli"})
    with pytest.raises(UserError, match="no such method; known: fastmix, reference"):
        parse_config(settings | {"method": "sign"})
    with pytest.raises(UserError, match="sign: unknown key"):
        parse_config(settings | {"sign": {"step": 0.2}})


@pytest.mark.usefixtures("registered")
def test_a_new_methods_section_is_part_of_the_schema(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings["method"] = "sign"
    assert method_of(parse_config(settings)).settings.step == 0.1
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    config = load_config(path, ["sign.step=0.3"])
    assert method_of(config).settings.step == 0.3
    assert parse_config(yaml.safe_load(config.to_yaml())) == config
    assert config.fingerprint() != load_config(path).fingerprint()
    with pytest.raises(UserError, match=r"sign\.stp: unknown key; did you mean 'step'"):
        load_config(path, ["sign.stp=0.3"])
    with pytest.raises(UserError, match=r"sign\.step: must be above 0"):
        load_config(path, ["sign.step=0"])
    with pytest.raises(UserError, match="stop_when_converged needs method: fastmix"):
        load_config(path, ["search.stop_when_converged=0.1"])
    assert "## `sign`" in page()

    assert cli.main(["check", str(path)]) == 0
    assert cli.main(["check", str(path), "train.steps=5"]) == 2
    assert "leave no room for an update" in capsys.readouterr().out
    assert cli.main(["check", str(path), "search.initial=bigram"]) == 2
    assert "search.initial: bigram needs method: fastmix" in capsys.readouterr().out


def test_a_method_that_left_is_unknown_again(settings: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, Sign.name, Sign)
        assert parse_config(settings | {"method": "sign"}).method == "sign"
    with pytest.raises(UserError, match="no such method"):
        parse_config(settings | {"method": "sign"})


@pytest.mark.distributed
def test_a_new_method_searches_and_resumes(settings: dict[str, Any], tmp_path: Path) -> None:
    """On two processes, with nothing but the registry told of it."""
    settings |= {"method": "sign", "sign": {"step": 0.25}}
    command = ("python", "tests.fastmix_mega.methods.sign_method", "search")
    found, rows, run_dir = searched_and_resumed(settings, tmp_path, command)
    assert [row["step"] for row in rows] == [8, 12, 16, 20, 24]
    assert found.search["outer_steps"] == 5
    assert read_mixture(run_dir / "mixture.json").search["method"] == "sign"

    # The rule, from the scores that the run wrote down.
    mixtures = [np.full(4, 0.25)]
    for row in rows:
        assert row["sampling"] == pytest.approx(mixtures[-1].tolist(), rel=1e-12)
        scores = np.array(row["scores"])
        moved = mixtures[-1] * np.exp(0.25 * np.sign(scores - scores.mean()))
        mixtures.append(moved / moved.sum())
        assert row["mixture"] == pytest.approx(mixtures[-1].tolist(), rel=1e-12)
    answer = [source.weight for source in found.sources]
    assert answer == pytest.approx(np.mean(mixtures[1:], axis=0).tolist(), rel=1e-12)
