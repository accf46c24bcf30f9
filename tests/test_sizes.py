"""How long files and functions are, and how many parameters functions have: no exceptions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("fastmix_mega", "data_tools")

FILE_LINES = 400
FUNCTION_LINES = 60
PARAMETERS = 7
"""Without `self` and `cls`."""


def sources() -> Iterator[tuple[str, str]]:
    """(path, text) of every module."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def functions(text: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(qualified name, node) of every function, inner ones too."""

    def within(node: ast.AST, path: str) -> Iterator[tuple[str, ast.FunctionDef]]:
        for child in ast.iter_child_nodes(node):
            name = getattr(child, "name", None) if isinstance(child, _NAMED) else None
            inner = path if name is None else f"{path}.{name}".lstrip(".")
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield inner, child
            yield from within(child, inner)

    yield from within(ast.parse(text), "")


_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without decorators."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = node.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names += [each.arg for each in (given.vararg, given.kwarg) if each is not None]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def above(sizes: dict[str, int], limit: int) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if size > limit}


def test_files() -> None:
    found = above({path: text.count("\n") for path, text in sources()}, FILE_LINES)
    assert not found, f"above {FILE_LINES} lines: split them along their jobs"


def test_functions() -> None:
    sizes = {
        f"{path} {name}": lines(node) for path, text in sources() for name, node in functions(text)
    }
    assert len(sizes) > 500
    found = above(sizes, FUNCTION_LINES)
    assert not found, f"above {FUNCTION_LINES} lines: give their parts names"


def test_parameters() -> None:
    counts = {
        f"{path} {name}": parameters(node)
        for path, text in sources()
        for name, node in functions(text)
    }
    found = above(counts, PARAMETERS)
    assert not found, f"above {PARAMETERS} parameters: what belongs together is a dataclass"


def test_what_is_counted() -> None:
    text = "class A:\n    def f(self, a, *b, c=1, **d):\n        def g(): pass\n        return g\n"
    found = {name: (lines(node), parameters(node)) for name, node in functions(text)}
    assert found == {"A.f": (3, 4), "A.f.g": (1, 0)}
