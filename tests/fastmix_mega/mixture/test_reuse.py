"""Which sources are untouched, and a search that goes on from an old mixture."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmix_mega.config.reuse import ReuseSection
from fastmix_mega.configuration import parse_config
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.source import TokenSource
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, read_mixture
from fastmix_mega.mixture.reuse import Reuse, data_digests, resolve_reuse
from fastmix_mega.planning.check import check
from tests.launch import column, forked, run_config
from tests.tiny import SOURCES

WEIGHTS = {"alpha": 0.1, "beta": 0.5, "gamma": 0.3, "delta": 0.1}


def opened(corpora: Path, names: dict[str, list[str]]) -> list[TokenSource]:
    """Sources by name, each with the files of corpora of the given names."""
    return [
        TokenSource(name, [str(corpora / file) for file in files], 16, 1)
        for name, files in names.items()
    ]


def old_mixture(corpora: Path, directory: Path, **changes: Any) -> Path:
    """A mixture file over all four sources, as a search writes it."""
    sources = [
        MixtureSource(
            name=source.name,
            weight=WEIGHTS[source.name],
            stderr=0.01,
            prefix=str(corpora / source.name),
            tokens=source.num_tokens,
            data_sha256=data_digests(source),
        ).model_copy(update=changes)
        for source in opened(corpora, {name: [name] for name in SOURCES})
    ]
    tokenizer = {"sha256": Tokenizer(corpora / "tokenizer.model").sha256}
    path = directory / "old.json"
    search = {"steps": 400, "train_tokens": 51200, "cost_in_proxy_runs": 1.1}
    MixtureFile(sources=sources, tokenizer=tokenizer, search=search).write(path)
    return path


def resolved(corpora: Path, directory: Path, names: dict[str, list[str]], **options: Any) -> Reuse:
    path = old_mixture(corpora, directory)
    given = ReuseSection(mixture=str(path), **options)
    sha256 = Tokenizer(corpora / "tokenizer.model").sha256
    return resolve_reuse(given, opened(corpora, names), sha256)


def by_name(reuse: Reuse) -> dict[str, float]:
    return dict(zip(reuse.names, reuse.initial.round(12).tolist(), strict=True))


def test_an_added_source_begins_with_an_even_share(corpora: Path, tmp_path: Path) -> None:
    names = {name: [name] for name in SOURCES} | {"new": ["target"]}
    reuse = resolved(corpora, tmp_path, names)
    assert reuse.free == {"new": "new"}
    assert list(reuse.kept) == list(SOURCES)
    assert by_name(reuse) == pytest.approx({k: 0.8 * v for k, v in WEIGHTS.items()} | {"new": 0.2})


def test_a_removed_source_gives_its_mass_in_proportion(corpora: Path, tmp_path: Path) -> None:
    reuse = resolved(corpora, tmp_path, {"alpha": ["alpha"], "gamma": ["gamma"]})
    assert reuse.removed == ["beta", "delta"]
    assert by_name(reuse) == pytest.approx({"alpha": 0.25, "gamma": 0.75})
    assert "no source is to be searched" in reuse.notes[0]


def test_a_split_source_is_found_by_name_and_by_its_files(corpora: Path, tmp_path: Path) -> None:
    parts = {}
    whole = IndexedTokens(corpora / "beta")
    for name, cut in (("one", slice(0, 1275)), ("two", slice(1275, None))):
        with IndexedWriter(tmp_path / name, whole.dtype) as writer:
            writer.add_document(whole.tokens[cut])
        parts[name] = [str(tmp_path / name)]
    names = {"alpha": ["alpha"], "gamma": ["gamma"], "delta": ["delta"]} | parts
    reuse = resolved(corpora, tmp_path, names, splits={"beta": ["one", "two"]})
    assert set(reuse.free) == {"one", "two"}
    share = 1275 / whole.num_tokens
    assert by_name(reuse)["one"] == pytest.approx(0.5 * share)
    assert by_name(reuse)["two"] == pytest.approx(0.5 * (1 - share))
    assert reuse.removed == []
    # The old source had both files: nobody has to name the parts.
    path = old_mixture(corpora, tmp_path)
    old = read_mixture(path)
    both = old.sources[1].model_copy(
        update={"prefix": [str(tmp_path / "one"), str(tmp_path / "two")], "data_sha256": None}
    )
    old.model_copy(update={"sources": [old.sources[0], both, *old.sources[2:]]}).write(path)
    found = resolve_reuse(
        ReuseSection(mixture=str(path)), opened(corpora, names), old.tokenizer["sha256"]
    )
    assert found.free == dict.fromkeys(("one", "two"), "part of beta, by its files")
    np.testing.assert_allclose(found.initial, reuse.initial)


def test_a_renamed_source_keeps_its_place(corpora: Path, tmp_path: Path) -> None:
    names = {"alpha": ["alpha"], "better": ["beta"], "gamma": ["gamma"], "delta": ["delta"]}
    reuse = resolved(corpora, tmp_path, names)
    assert reuse.kept["better"] == "beta"
    assert by_name(reuse)["better"] == pytest.approx(0.5)
    assert not reuse.free


def test_other_data_under_an_old_name_are_searched(corpora: Path, tmp_path: Path) -> None:
    names = {"alpha": ["target"], "beta": ["beta"], "gamma": ["gamma"], "delta": ["delta"]}
    assert resolved(corpora, tmp_path, names).free == {"alpha": "its data changed"}
    assert not resolved(corpora, tmp_path, names, keep=["alpha"]).free
    assert resolved(corpora, tmp_path, names, free=["gamma"]).free["gamma"] == "asked for"
    # Without checksums the numbers of tokens tell.
    path = old_mixture(corpora, tmp_path, data_sha256=None)
    sha256 = Tokenizer(corpora / "tokenizer.model").sha256
    found = resolve_reuse(ReuseSection(mixture=str(path)), opened(corpora, names), sha256)
    assert "it had 5,100 tokens and has 1,530" in found.free["alpha"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"splits": {"nobody": ["alpha"]}}, "no source of"),
        ({"splits": {"beta": ["gamma"]}}, "a source of its own"),
        ({"free": ["nobody"]}, "no source of this search"),
    ],
)
def test_wrong_names_are_refused(
    corpora: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        resolved(corpora, tmp_path, {name: [name] for name in SOURCES}, **options)


def test_check_refuses_another_tokenizer_and_tells_the_plan(
    settings: dict[str, Any], corpora: Path, tmp_path: Path
) -> None:
    path = old_mixture(corpora, tmp_path)
    settings["sources"][3] |= {"name": "new", "prefix": str(corpora / "other_target")}
    settings["targets"] = settings["targets"][:1]
    settings["search"] |= {"initial": "auto", "reuse": {"mixture": str(path)}}
    settings["train"]["steps"] = 600
    found = check(parse_config(settings), 1)
    assert found.mistakes == []
    told = "\n".join(found.facts)
    assert "new is searched (new), from 25.0%" in told
    assert "gone are delta; their 10.0%" in told
    # An old source had a quarter of 400 steps' samples; half of .25 and half of .5 are .375.
    assert f"{4 + 267} steps instead of 600" in told
    old = read_mixture(path)
    old.model_copy(update={"tokenizer": {"sha256": "0" * 64}}).write(path)
    assert "another tokenizer" in "".join(check(parse_config(settings), 1).mistakes)
    with pytest.raises(UserError, match="drop `initial`"):
        parse_config(settings | {"search": settings["search"] | {"initial": "proportional"}})


@pytest.mark.distributed
def test_an_added_source_ends_where_a_full_search_puts_it(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """The target is distributed like beta, which the old search did not have.

    Full, old and new search on one process; the new one again on two, with limits, stopped and
    continued on the way.
    """
    settings["targets"] = settings["targets"][:1]
    settings["train"] |= {"steps": 96, "schedule": {"warmup": 3, "peak": 6e-3}}
    settings["search"] = {"every": 4, "warmup": 8, "target_batch": 8, "initial": "uniform"}
    # Reuse moves a trajectory; the full search is compared like with like.
    settings["search"] |= {"score_tokens": 1.0, "answer": "trajectory"}
    full = read_mixture(run_config("search", settings, tmp_path / "full") / "mixture.json")
    without = copy.deepcopy(settings)
    without["sources"] = [each for each in settings["sources"] if each["name"] != "beta"]
    old_run = run_config("search", without, tmp_path / "old")
    again = copy.deepcopy(settings)
    again["train"]["steps"] = 72
    again["search"] |= {"initial": "auto", "reuse": {"mixture": str(old_run)}}
    again["init_from"] = str(old_run)
    run = run_config("search", again, tmp_path / "again")
    found, old = read_mixture(run / "mixture.json"), read_mixture(old_run / "mixture.json")
    share = {
        file: {s.name: s for s in mix.sources} for file, mix in (("full", full), ("new", found))
    }
    noise = np.hypot(share["full"]["beta"].stderr, share["new"]["beta"].stderr)
    gap = abs(share["full"]["beta"].weight - share["new"]["beta"].weight)
    assert gap < 3 * noise, (share["full"]["beta"], share["new"]["beta"])
    assert share["new"]["beta"].weight > 0.4
    rest = 1 - share["new"]["beta"].weight
    for source in old.sources:
        assert share["new"][source.name].weight == pytest.approx(rest * source.weight, rel=1e-12)
    told = found.search["reuse"]
    assert told["searched"] == {"beta": "new"}
    assert 0.7 < told["cost_in_old_searches"] < 0.9
    # The trajectory is the same on another layout, and after a stop.
    again["search"]["constraints"] = {"sources": {"beta": {"max": 0.35}}}
    again["train"]["steps"] = 24
    again["checkpoint"] = {"every": 12}
    one = run_config("search", again, tmp_path / "one")
    two = copy.deepcopy(again) | {"parallel": {"tensor": 2}}
    other = run_config("search", two, tmp_path / "two", processes=2)
    mixtures = column(one, "history.jsonl", "mixture")
    np.testing.assert_allclose(column(other, "history.jsonl", "mixture"), mixtures, rtol=1e-4)
    np.testing.assert_allclose(mixtures[:, 1].max(), 0.35, rtol=1e-9)
    whole = (one / "mixture.json").read_bytes()
    for path in (one / "checkpoints").glob("step_*24"):
        path.rename(tmp_path / "away")
    forked("search", str(tmp_path / "one" / "config.yaml"))
    assert (one / "mixture.json").read_bytes() == whole
    (tmp_path / "old" / "run" / "mixture.json").write_text("{}")
    assert "has changed" in forked("search", str(tmp_path / "one" / "config.yaml"), expect=2)[1]
