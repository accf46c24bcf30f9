from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, read_mixture, resolve_mixture

NAMES = ["a", "b"]


def write(path: Path, **changes: Any) -> Path:
    content = {
        "schema": "fastmix-mixture/1",
        "unit": "tokens",
        "sources": [{"name": "a", "weight": 0.25}, {"name": "b", "weight": 0.75}],
    }
    path.write_text(json.dumps(content | changes))
    return path


def test_round_trip_keeps_unknown_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", made_later={"x": 1})
    read_mixture(path).write(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text())["made_later"] == {"x": 1}
    assert read_mixture(tmp_path / "again.json") == read_mixture(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "other/2"}, "fastmix-mixture/1"),
        ({"unit": "documents"}, "tokens"),
        ({"sources": []}, "at least 1"),
        ({"sources": 1}, "sources: Input should be a valid list"),
        ({"sources": [{"name": "a", "weight": 0.5}]}, "sum to 0.5"),
        ({"sources": [{"name": "a", "weight": 0.5}] * 2}, "twice"),
        ({"sources": [{"name": "a", "weight": -1}, {"name": "b", "weight": 2}]}, "equal to 0"),
        ({"sources": [{"name": "a", "weight": "NaN"}]}, "finite"),
        ({"sources": [{"name": "a", "weight": 1, "tokens": 10**400}]}, "less than or equal"),
        ({"search": {"train_tokens": 10**400}}, "search.train_tokens is above"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "m.json", **changes)
    with pytest.raises(UserError, match=message) as error:
        read_mixture(path)
    assert str(path) in str(error.value)


@given(some.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a mixture file"):
        read_mixture(path)


def test_resolve(tmp_path: Path) -> None:
    path = str(write(tmp_path / "m.json"))
    assert resolve_mixture("uniform", NAMES, [1, 3], "mixture").tolist() == [0.5, 0.5]
    assert resolve_mixture("proportional", NAMES, [1, 3], "mixture").tolist() == [0.25, 0.75]
    assert resolve_mixture(path, NAMES, [1, 3], "mixture").tolist() == [0.25, 0.75]
    assert resolve_mixture({"b": 0.9, "a": 0.1}, NAMES, [1, 3], "m").tolist() == [0.1, 0.9]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": 1.0}, "no weight for b"),
        ({"a": 0.5, "b": 0.2, "c": 0.3}, "c is no source here"),
        ({"a": 0.5, "b": 0.4}, "sum to 0.9"),
        ({"a": -0.5, "b": 1.5}, "not negative"),
        ("nowhere.json", "cannot read the mixture nowhere.json"),
    ],
)
def test_resolve_explains(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_mixture(given, NAMES, [1, 3], "mixture")


def test_weights_written_sum_to_one(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(200))
    mixture = MixtureFile(
        sources=[MixtureSource(name=f"s{i}", weight=float(w)) for i, w in enumerate(weights)]
    )
    mixture.write(tmp_path / "m.json")
    assert sum(s.weight for s in read_mixture(tmp_path / "m.json").sources) == pytest.approx(1)


def test_a_run_folder_stands_for_its_mixture(tmp_path: Path) -> None:
    write(tmp_path / "mixture.json")
    assert resolve_mixture(str(tmp_path), NAMES, [1, 1], "mixture").tolist() == [0.25, 0.75]
    with pytest.raises(UserError, match="taken from the current folder"):
        resolve_mixture("no/such/folder", NAMES, [1, 1], "mixture")
    with pytest.raises(UserError, match="neither a file nor a rule; did you mean 'proportional'"):
        resolve_mixture("proportionl", NAMES, [1, 1], "mixture")
