"""No import runs upward and no imports form a circle; pyproject.toml says what stands where."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import clean_environment

ROOT = Path(__file__).parent.parent
COMMAND = "import sys; from importlinter.cli import lint_imports_command as run; sys.exit(run())"


def lint(checkout: Path, *contracts: str) -> tuple[int, str]:
    """`lint-imports` on a checkout's own packages; returns exit code and output."""
    only = [word for name in contracts for word in ("--contract", name)]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "--no-cache", *only],
        cwd=checkout,
        env=clean_environment() | {"PYTHONPATH": str(checkout), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is checked."""
    copy = tmp_path_factory.mktemp("house")
    for folder in ("fastmix_mega", "data_tools"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def test_the_house_stands() -> None:
    code, output = lint(ROOT)
    assert code == 0, output
    assert "0 broken" in output


@pytest.mark.parametrize(
    ("file", "added", "contract", "told"),
    [
        (
            "fastmix_mega/mixture/simplex.py",
            "if __debug__:\n    from fastmix_mega.training import stop  # noqa",
            "floors",
            "fastmix_mega.mixture is not allowed to import fastmix_mega.training",
        ),
        (
            "fastmix_mega/data/source.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
            "    from fastmix_mega.model.presets import ModelShape",
            "floors",
            "fastmix_mega.data is not allowed to import fastmix_mega.model",
        ),
        (
            "fastmix_mega/config/base.py",
            "def late() -> None:\n    from fastmix_mega.config import schema",
            "circles",
            "No cycles are allowed in fastmix_mega.config",
        ),
        (
            "fastmix_mega/planning/memory.py",
            "import data_tools.inputs",
            "data-tools-above",
            "fastmix_mega.planning.memory -> data_tools.inputs",
        ),
        (
            "data_tools/merge.py",
            "from fastmix_mega.mixture.file import read_mixture",
            "data-tools-below",
            "data_tools is not allowed to import fastmix_mega.mixture",
        ),
        (
            "fastmix_mega/report/build.py",
            "def late() -> None:\n    import research.retrain",
            "product",
            "fastmix_mega is not allowed to import research",
        ),
    ],
)
def test_a_mistake_is_seen(house: Path, file: str, added: str, contract: str, told: str) -> None:
    path = house / file
    text = path.read_text()
    path.write_text(f"{text}\n{added}\n")
    try:
        code, output = lint(house, contract)
    finally:
        path.write_text(text)
    assert code == 1, output
    assert told in " ".join(output.split()), output


def test_a_new_folder_needs_a_floor(house: Path) -> None:
    cellar = house / "fastmix_mega" / "cellar.py"
    cellar.write_text('"""Nobody said where this stands."""\n')
    try:
        code, output = lint(house, "floors")
    finally:
        cellar.unlink()
    assert code == 1
    assert "cellar" in output
