"""Every import of the project's own modules finds its name, also those that functions make late.

A benchmark or a study is rarely run, and a name that has moved would be missed only then.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("fastmix_mega", "data_tools", "benchmarks", "research", "tests")


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every `from ... import ...` of our own, at any depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.split(".")[0] in FOLDERS:
                yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in FOLDERS:
                    yield alias.name, ""


@pytest.mark.parametrize("folder", FOLDERS)
def test_imported_names_exist(folder: str) -> None:
    missing = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for module, name in imported(path):
            try:
                found = importlib.import_module(module)
                if name and not hasattr(found, name):
                    importlib.import_module(f"{module}.{name}")
            except ImportError as error:
                # What another environment has, such as lm-eval, is not ours to miss.
                if error.name is None or error.name.split(".")[0] in FOLDERS:
                    missing.append(f"{path.relative_to(ROOT)}: {module} {name}: {error}")
    assert not missing, "\n".join(missing)
