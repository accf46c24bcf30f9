"""The report's sentences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.report import words
from fastmix_mega.report.findings import confidence, headline, key_figures, lead, warnings
from fastmix_mega.report.read import read_run
from fastmix_mega.report.sources import Mixture, view_mixture
from tests.fastmix_mega.report.samples import write_run


def view(directory: Path) -> Mixture:
    mixture = view_mixture(read_run(directory))
    assert mixture is not None
    return mixture


def change(directory: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = directory / "mixture.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def set_weights(directory: Path, weights: list[float], stderr: float) -> None:
    def edit(content: dict[str, Any]) -> None:
        for source, weight in zip(content["sources"], weights, strict=True):
            source |= {"weight": weight, "stderr": stderr}

    change(directory, edit)


@pytest.fixture
def four(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", ("docs", "code", "web", "junk"), outer_steps=12)


def test_headline_and_confidence(four: Path) -> None:
    set_weights(four, [0.45, 0.3, 0.246, 0.004], stderr=0.03)
    mixture, run = view(four), read_run(four)
    assert headline(run, mixture) == "Train mostly on docs (45%) and code (30%); only 0.40% on junk"
    assert confidence(run, mixture)[:2] == [
        "An even share would be 25%.",
        "Clearly above it: docs; clearly below: junk; not told apart: code and web.",
    ]


def test_a_search_that_tells_nothing_apart_says_so(four: Path) -> None:
    set_weights(four, [0.3, 0.27, 0.23, 0.2], stderr=0.05)
    assert headline(read_run(four), view(four)) == "No clear preference among the 4 sources"


def test_an_even_mixture_has_no_leaders(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", ("docs", "code", "web", "junk"), training=True)
    set_weights(directory, [0.25] * 4, stderr=0)
    assert headline(read_run(directory), view(directory)) == "Trained evenly on 4 sources"


def test_leaders_within_their_noise_are_warned_about(four: Path) -> None:
    set_weights(four, [0.4, 0.35, 0.24, 0.01], stderr=0.09)
    found = " ".join(warnings(read_run(four), view(four)))
    assert "does not tell docs and code apart from an even share" in found


def test_without_standard_errors_nothing_is_called_clear(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", estimates_errors=False)
    mixture = view(directory)
    assert not mixture.has_errors
    assert confidence(read_run(directory), mixture) == [
        "This method gives no standard errors: the weights may be off by any amount."
    ]


def test_the_searchs_own_warnings_come_first(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", outer_steps=3))
    assert warnings(run, view(run.directory))[0] == "The search was short."


def test_repeated_sources_are_warned_about_by_name(four: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        for source, epochs in zip(content["sources"], (4.0, 4.5, 0.1, 12.0), strict=True):
            source["epochs_at_budget"] = epochs

    change(four, edit)
    found = " ".join(warnings(read_run(four), view(four)))
    assert "code (4.5 times)" in found
    assert "junk (12 times)" in found
    assert "docs (4 times)" not in found


def test_a_mixture_that_still_moves_is_warned_about(four: Path) -> None:
    set_weights(four, [0.4, 0.3, 0.2, 0.1], stderr=0.01)
    path = four / "history.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]

    def rewrite(mixtures: list[list[float]]) -> str:
        lines = [json.dumps(row | {"mixture": m}) for row, m in zip(rows, mixtures, strict=True)]
        path.write_text("\n".join(lines) + "\n")
        return " ".join(warnings(read_run(four), view(four)))

    steady = [[0.4, 0.3, 0.2, 0.1]] * 12
    assert "still moving" not in rewrite(steady)
    late = steady[:9] + [[0.5, 0.2, 0.2, 0.1]] * 3
    assert "docs (40% to 50%) and code (30% to 20%)" in rewrite(late)


def test_a_source_that_was_never_drawn_is_named(four: Path) -> None:
    path = four / "history.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["counts"][1] = 0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert any(
        text.startswith("Never scored") and text.split(": ")[1].startswith("code.")
        for text in warnings(read_run(four), view(four))
    )


def test_the_data_last_until_the_first_source_was_read_four_times(four: Path) -> None:
    set_weights(four, [0.4, 0.3, 0.2, 0.1], stderr=0.01)

    def edit(content: dict[str, Any]) -> None:
        for source, tokens in zip(content["sources"], (1e6, 3e5, 1e6, 1e6), strict=True):
            source["tokens"] = int(tokens)

    change(four, edit)
    figures = {figure.label: figure for figure in key_figures(read_run(four), view(four))}
    assert figures["Data lasts for"].value == "4M tokens"
    assert "code" in figures["Data lasts for"].detail
    assert figures["Cost"].value == "1.08 proxy runs"


def test_lead_names_targets_budget_and_cost(four: Path) -> None:
    assert lead(read_run(four), view(four)) == (
        "Found for the targets unseen and average with one proxy run of 120 steps (246k tokens). "
        "That cost as much as 1.08 plain training runs of the proxy."
    )


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.314, "31%"), (0.0421, "4.2%"), (0.0038, "0.38%"), (0, "0%"), (1, "100%"), (1e-6, "<0.01%")],
)
def test_percent(share: float, text: str) -> None:
    assert words.percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(870, "870"), (999_999, "1M"), (1_234_567, "1.23M"), (3.4e9, "3.4B"), (0.5, "0.5")],
)
def test_quantity(value: float, text: str) -> None:
    assert words.quantity(value) == text


def test_signed_uses_a_real_minus() -> None:
    assert words.signed(-0.0123) == "−0.0123"
    assert words.signed(4.2e-7) == "+4.2e−7"
    assert words.signed(0.0) == "0"


def test_listing_and_shortening() -> None:
    assert words.listing(["a"]) == "a"
    assert words.listing(["a", "b", "c"]) == "a, b and c"
    assert words.listing(list("abcdefgh"), most=2) == "a, b and 6 more"
    assert words.shorten("commoncrawl_part_001", 12) == "commo…rt_001"


def test_a_training_run_with_stages_says_so(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", ("docs", "code", "web", "junk"), training=True)
    assert "with a fixed mixture; nothing" in lead(read_run(directory), view(directory))
    stages = [{"name": "anneal", "from_tokens": 20_000, "mixture": "proportional"}]
    config = yaml.safe_load((directory / "config.yaml").read_text()) | {"stages": stages}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    shown = lead(read_run(directory), view(directory))
    assert "2 mixtures one after the other (after the first: anneal from 20k tokens)" in shown
    assert "fixed" not in shown


def test_targets_that_are_looked_at_in_turn_are_compared_with_themselves(four: Path) -> None:
    rows = [json.loads(line) for line in (four / "history.jsonl").read_text().splitlines()]
    rows[0]["target_loss"], rows[1]["target_loss"] = (
        {"unseen": 7.0},
        {"unseen": 6.5, "average": 5.0},
    )
    rows[-1]["target_loss"] = {"unseen": 5.0, "average": 4.0}
    for row in rows:
        row |= dict.fromkeys(("target_scores", "target_score_stderr", "target_weights"))
    (four / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(four)
    (figure,) = (each for each in key_figures(run, view(four)) if each.label == "Target loss")
    assert figure.value == "4.500"
    assert figure.detail == "nats per token, from 6.000 at first"
