"""The page: complete, self-contained, true to the files, safe, and kind to unfinished runs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.errors import UserError
from fastmix_mega.report.build import SCRIPTS, build_report
from tests.fastmix_mega.report.samples import CASES, HOSTILE, NAMES, write_run

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that elements nest, and keeps attributes, the table and the embedded data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open_elements: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[tuple[str, str | None]]] = []
        """Of the table of all numbers."""
        self._counts = False
        self.texts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(text)
        self.close()
        assert self.open_elements == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open_elements.append(tag)
        if tag == "table":
            self._counts = dict(attrs).get("id") == "sources-table"
        if tag == "tr" and self._counts:
            self.cells.append([])
        if tag in ("td", "th") and self._counts:
            self.cells[-1].append(("", dict(attrs).get("data-value")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open_elements.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open_elements[-1] if self.open_elements else ""
        self.texts[inside] = self.texts.get(inside, "") + data
        if self._counts and {"td", "th"} & set(self.open_elements):
            text, value = self.cells[-1][-1]
            self.cells[-1][-1] = (text + data, value)
        if inside == "script" and self.elements[-1][1].get("type") == "application/json":
            self._script = (self._script or "") + data

    @property
    def data(self) -> dict[str, Any]:
        assert self._script is not None
        return dict(json.loads(self._script))

    def column(self, title: str, occurrence: int = 0) -> list[tuple[str, str | None]]:
        titles = [text for text, _ in self.cells[0]]
        at = [index for index, text in enumerate(titles) if text == title][occurrence]
        return [row[at] for row in self.cells[1:]]


def page_of(directory: Path) -> Page:
    return Page(build_report(directory).read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_run_makes_a_whole_self_contained_page(case: str, tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", **CASES[case])
    path = build_report(directory)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == directory / "report.html"
    assert page.texts["h1"].strip()
    for tag, attributes in page.elements:
        assert tag not in ("img", "iframe", "object", "embed")
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert attributes.get(name, "data:,") == "data:,"
        # A formatting slip would show as one of these in coordinates and styles.
        shape = " ".join(attributes.get(name) or "" for name in ("d", "style", "x", "width"))
        assert not re.search(r"nan|inf|None", shape)
    colours = {c for _, a in page.elements for c in (a.get("class") or "").split() if c[0] in "ch"}
    for colour in {name for name in colours if re.fullmatch(r"[ch]-?\d+", name)}:
        assert f".{colour} {{" in page.texts["style"]
    assert "@import" not in page.texts["style"]
    assert "url(" not in page.texts["style"]
    assert page.data["run"] == "run"


def test_the_table_holds_the_files_numbers(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    mixture = json.loads((directory / "mixture.json").read_text())
    last = json.loads((directory / "history.jsonl").read_text().splitlines()[-1])
    metrics = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    drawn = metrics[-2]["source_count"]
    order = sorted(range(len(NAMES)), key=lambda index: -mixture["sources"][index]["weight"])
    page = page_of(directory)
    assert [text for text, _ in page.column("Source")] == [NAMES[index] for index in order]

    def expect(title: str, values: list[float], form: str, occurrence: int = 0) -> None:
        cells = page.column(title, occurrence)
        assert [float(value or "nan") for _, value in cells] == [values[index] for index in order]
        if form:
            assert [text for text, _ in cells] == [form.format(values[index]) for index in order]

    sources = mixture["sources"]
    expect("Weight", [source["weight"] for source in sources], "{:.2%}")
    expect("Standard error", [source["stderr"] for source in sources], "{:.2%}")
    expect("Tokens", [source["tokens"] for source in sources], "")
    expect("Epochs in this run", [source["epochs_at_budget"] for source in sources], "{:.3g}")
    expect("Drawn", [count / sum(drawn) for count in drawn], "{:.2%}")
    expect("Last score", last["scores"], "")
    expect("Standard error", last["score_stderr"], "{:.3g}", occurrence=1)
    average = sum(w * s for w, s in zip(last["mixture"], last["scores"], strict=True))
    ratios = zip(last["scores"], last["score_stderr"], strict=True)
    expect("Signal to noise", [(score - average) / error for score, error in ratios], "")
    assert page.texts["h1"].startswith(f"Train mostly on {NAMES[order[0]]} (")


def test_the_mixtures_bars_are_as_long_as_the_weights(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    weights = [s["weight"] for s in json.loads((directory / "mixture.json").read_text())["sources"]]
    page = page_of(directory)
    bars = [
        a for tag, a in page.elements if tag == "rect" and (a.get("class") or "").startswith("bar")
    ]
    lengths = [float((bar["width"] or "").rstrip("%")) for bar in bars[1:]]  # the first is the key
    assert len(lengths) == len(weights)
    for length, weight in zip(lengths, sorted(weights, reverse=True), strict=True):
        assert length / lengths[0] == pytest.approx(weight / max(weights), abs=1e-4)


def test_drawn_lines_are_the_trajectory(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    rows = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    chart = page_of(directory).data["charts"]["trajectory"]
    # The start, and the end of the warm-up, are at the configured first mixture.
    assert chart["x"] == [0, 24, *(row["step"] for row in rows)]
    for series in chart["series"]:
        index = NAMES.index(series["name"])
        assert series["values"][:2] == [1 / 8, 1 / 8]
        assert series["values"][2:] == pytest.approx(
            [row["mixture"][index] for row in rows], rel=1e-4
        )


@pytest.mark.parametrize("pairs", [False, True])
def test_lines_begin_where_an_automatic_search_began(tmp_path: Path, pairs: bool) -> None:
    directory = write_run(tmp_path / "run")
    config = yaml.safe_load((directory / "config.yaml").read_text())
    config["search"]["initial"] = "auto"
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    begun = {name: (1 + number) / 36 for number, name in enumerate(NAMES)}
    mixture = json.loads((directory / "mixture.json").read_text())
    mixture["search"] |= {"first_mixture": begun} if pairs else {}
    (directory / "mixture.json").write_text(json.dumps(mixture))
    for series in page_of(directory).data["charts"]["trajectory"]["series"]:
        wanted = begun[series["name"]] if pairs else 1 / 8
        assert series["values"][:2] == pytest.approx([wanted, wanted], rel=1e-4)


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", HOSTILE)
    page = page_of(directory)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == len(SCRIPTS) + 1
    assert "img" not in tags
    assert sorted(source["name"] for source in page.data["sources"]) == sorted(HOSTILE)
    assert sorted(text for text, _ in page.column("Source")) == sorted(HOSTILE)
    # A browser ends a script element at these, whatever the language in it.
    embedded = re.search(
        r'id="report-data">(.*?)</script>', (directory / "report.html").read_text()
    )
    assert embedded is not None
    assert not re.search(r"[<>&]", embedded[1])


def test_only_the_pages_own_script_may_run(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/]+=*'", policy)


def test_an_unfinished_search_shows_its_latest_mixture(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", finished=False)
    with (directory / "history.jsonl").open("a") as file:
        file.write('{"outer_step": 48, "st')  # a line that is being written
    last = json.loads((directory / "history.jsonl").read_text().splitlines()[-2])["mixture"]
    page = page_of(directory)
    assert page.texts["h1"].startswith("Search in progress; so far: train mostly on")
    assert [float(v or 0) for _, v in page.column("Weight")] == sorted(last, reverse=True)
    assert [text for text, _ in page.column("Tokens")] == ["–"] * len(NAMES)


def test_a_run_that_has_just_started_says_so(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", finished=False, outer_steps=0)
    (directory / "metrics.jsonl").unlink()
    (directory / "history.jsonl").unlink()
    assert "Run in progress" in page_of(directory).texts["h1"]


def test_a_training_run_has_no_search(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", training=True))
    assert page.texts["h1"].startswith("Trained mostly on")
    assert set(page.data["charts"]) == {"source"}
    assert "Last score" not in [text for text, _ in page.cells[0]]


def test_an_absent_loss_is_left_out(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", absent=1.0))
    assert "source" not in page.data["charts"]


def test_a_long_run_is_thinned(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", outer_steps=1500, every=1))
    x = page.data["charts"]["trajectory"]["x"]
    assert len(x) < 200
    assert x[-1] == 1524
    assert len(page.data["charts"]["source"]["x"]) <= 60


def test_built_twice_it_is_the_same(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    assert build_report(directory).read_bytes() == build_report(directory).read_bytes()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.yaml", None, "not a run folder"),
        ("config.yaml", "sources: [", "not valid YAML"),
        ("mixture.json", "{}", "not a mixture file"),
        ("history.jsonl", "oops\n", "history.jsonl holds a line that is not JSON"),
        ("history.jsonl", "[1]\n", "no JSON object"),
        ("history.jsonl", '{"outer_step": 1}\n', "history.jsonl, row 1 of its kind: step"),
        ("metrics.jsonl", '{"step": 1, "tokens": "many"}\n', "metrics.jsonl, row 1"),
    ],
)
def test_a_broken_folder_is_the_users_mistake(
    file: str, content: str | None, message: str, tmp_path: Path
) -> None:
    directory = write_run(tmp_path / "run", NAMES[:3], outer_steps=2)
    if content is None:
        (directory / file).unlink()
    else:
        (directory / file).write_text(content)
    with pytest.raises(UserError, match=re.escape(message)):
        build_report(directory)
    assert not (directory / "report.html").exists()


@pytest.mark.parametrize(
    ("file", "keys", "value", "message"),
    [
        ("mixture.json", ("search", "steps"), None, "search.steps"),
        ("mixture.json", ("search", "cost_in_proxy_runs"), "low", "search.cost_in_proxy_runs"),
        ("mixture.json", ("search", "layout"), "2x1", "search.layout"),
        ("mixture.json", ("search", "warnings"), 1, "search.warnings"),
        ("mixture.json", ("targets", 0, "weight"), 0, "targets.0.weight"),
        ("config.yaml", ("model",), "1M", "model"),
        ("config.yaml", ("targets", 0), "unseen", "targets.0"),
        ("config.yaml", ("search", "every"), "often", "search.every"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(
    file: str, keys: tuple[str | int, ...], value: object, message: str, tmp_path: Path
) -> None:
    directory = write_run(tmp_path / "run", NAMES[:3], outer_steps=2)
    path = directory / file
    # JSON is YAML, too.
    content: Any = yaml.safe_load(path.read_text())
    node = content
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=re.escape(f"{file}: {message}: ")):
        build_report(directory)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", ("a", "b"), outer_steps=2)
    path = directory / "mixture.json"
    path.write_text(path.read_text().replace('"a"', '"a\\ud800"'))
    with pytest.raises(UserError, match="not a mixture file"):
        build_report(directory)


def test_two_runs_in_one_folder_are_found_out(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    other = write_run(tmp_path / "other", NAMES[:3])
    (directory / "history.jsonl").write_bytes((other / "history.jsonl").read_bytes())
    with pytest.raises(UserError, match="3 values for 8 sources"):
        build_report(directory)


def test_no_folder_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        build_report(tmp_path / "missing")
