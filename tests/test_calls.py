"""No call hands over more than three positional arguments of one kind: who could tell them apart?

Of calls to our own functions, methods and classes, as far as their names say which these are; of
one kind are parameters with the same annotation.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("fastmix_mega", "data_tools", "research", "benchmarks")
MOST_ALIKE = 3


def kinds_by_name(trees: dict[Path, ast.Module]) -> dict[str, list[list[str]]]:
    """The annotations of the positional parameters of all that bears a name."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for tree in trees.values():
        methods = {
            id(node)
            for owner in ast.walk(tree)
            if isinstance(owner, ast.ClassDef)
            for node in owner.body
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                kinds = _of_function(node, bound=id(node) in methods)
                if node.name != "__init__":
                    found[node.name].append(kinds)
            elif isinstance(node, ast.ClassDef):
                found[node.name].append(_of_class(node))
    return found


def _of_function(node: ast.FunctionDef, bound: bool) -> list[str]:
    parameters = [*node.args.posonlyargs, *node.args.args]
    static = any(ast.unparse(each) == "staticmethod" for each in node.decorator_list)
    if bound and not static:
        parameters = parameters[1:]
    return ["" if each.annotation is None else ast.unparse(each.annotation) for each in parameters]


def _of_class(node: ast.ClassDef) -> list[str]:
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return _of_function(each, bound=True)
    return [ast.unparse(each.annotation) for each in node.body if isinstance(each, ast.AnnAssign)]


def calls_alike(tree: ast.Module, known: dict[str, list[list[str]]]) -> Iterator[str]:
    """Line and callee of each call that is against the rule."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
        given = len(node.args)
        if any(isinstance(each, ast.Starred) for each in node.args):
            continue
        # Where several things have one name, a call is wrong only if it is for each of them.
        alike = [
            max(Counter(filter(None, kinds[:given])).values(), default=0)
            for kinds in known.get(str(name), [])
        ]
        if alike and min(alike) > MOST_ALIKE:
            yield f"{node.lineno}: {name}"


def test_no_call_has_more_than_three_positional_arguments_of_one_kind() -> None:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text()) for path in paths}
    known = kinds_by_name(trees)
    wrong = [
        f"{path.relative_to(ROOT)}:{each}"
        for path, tree in trees.items()
        for each in calls_alike(tree, known)
    ]
    assert not wrong, "\n".join(["name these arguments:", *wrong])


def test_a_call_is_seen() -> None:
    tree = ast.parse(
        "class Box:\n    def move(self, a: int, b: int, c: int, d: int) -> None: ...\n"
        "box.move(1, 2, 3, 4)\nbox.move(1, 2, 3, d=4)\nelsewhere(1, 2, 3, 4)\n"
    )
    assert list(calls_alike(tree, kinds_by_name({Path("x"): tree}))) == ["3: move"]
