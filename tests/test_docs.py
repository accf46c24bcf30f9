"""The documentation: the reference is current, links lead somewhere, examples are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fastmix_mega.cli.reference_page import page as reference_page
from fastmix_mega.config.constraints import Constraints
from fastmix_mega.export.formats import FORMATS

ROOT = Path(__file__).parent.parent
USER_PAGES = [
    ROOT / "docs" / f"{name}.md"
    for name in (
        "quickstart",
        "data",
        "configure",
        "search",
        "train",
        "export",
        "post-training",
        "scale",
        "reliability",
        "trust",
        "report",
        "method",
        "glossary",
        "reference",
    )
]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_reference_is_current() -> None:
    told = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert told == reference_page(), (
        "run python -m fastmix_mega.cli.reference_page > docs/reference.md"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-") for each in headings}
            assert anchor in slugs, f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:tests|fastmix_mega|data_tools|benchmarks|research|configs|slurm)/[\w./-]+)`",
        page.read_text(encoding="utf-8"),
    )
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing, f"{page.name} names {missing}"


def test_the_pages_limits_are_valid() -> None:
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    block = re.search(r"( {4}budget_tokens:.*?)\n\n", page, re.DOTALL)
    assert block is not None
    limits = Constraints.model_validate(yaml.safe_load(block[1]))
    assert limits.budget_tokens == 2 * 10**12
    assert limits.groups["web"].max == 0.7


def test_the_page_of_formats_names_every_one() -> None:
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name, each in FORMATS.items() if each.write)


@pytest.mark.parametrize("page", USER_PAGES, ids=lambda page: page.name)
def test_a_users_page_begins_with_a_command(page: Path) -> None:
    first = page.read_text(encoding="utf-8").splitlines()[:10]
    assert any(line.startswith("    ") and line.split() for line in first), page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_is_at_most_100_characters_wide(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    wide = [
        line
        for line in text.splitlines()
        if len(line) > 100 and not line.startswith(("|", "    ", "!")) and "](" not in line
    ]
    assert not wide, wide[0]
