"""torchtitan since 2026-08: data sets are put together in Python, and so is the export."""

from __future__ import annotations

import ast

from fastmix_mega.errors import UserError
from fastmix_mega.export.blend import Blend, Given
from fastmix_mega.export.plan import Part, Plan
from fastmix_mega.export.text import a_number

BODY = '''

def mixture(text_of=lambda row: row["text"]):
    """Every source is packed by itself, so that a weight counts rows of one length: tokens."""
    return DatasetMixConfig(
        datasets=tuple(
            WeightedDataset(dataset=_packed(path, text_of), weight=weight)
            for _, path, weight in SOURCES
        )
    )


def _packed(path, text_of):
    documents = SingleDatasetConfig(
        source=IndexedJsonlSource.Config(patterns=(path,)),
        processor=TextProcessor.Config(text_fn=text_of),
        post_filters=(lambda sample: sample is not None,),
    )
    return ConcatThenSplitPackingConfig(dataset=documents)
'''
HEAD = """
from torchtitan.components.data import (
    ConcatThenSplitPackingConfig,
    DatasetMixConfig,
    IndexedJsonlSource,
    SingleDatasetConfig,
    WeightedDataset,
)
from torchtitan.hf_datasets.text_datasets import TextProcessor

"""


def write_mix(plan: Plan) -> str:
    """A Python module whose `mixture()` is a DatasetMixConfig of packed sources."""
    comment = "".join(f"# {line}\n" for line in plan.notes)
    rows = "".join(
        f"    ({part.source!r}, {part.path!r}, {part.weight!r}),\n" for part in plan.parts(None)
    )
    return f"{comment}{HEAD}SOURCES = (\n{rows})\n{BODY}"


def read_mix(given: Given) -> list[Blend]:
    """`SOURCES` of such a module; nothing of it is run."""
    try:
        tree = ast.parse(given.text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f"it is no Python: {error}") from None
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(each, ast.Name) and each.id == "SOURCES" for each in targets):
            assert isinstance(node, ast.Assign)
            return [Blend(_parts(node.value))]
    raise UserError("it has no SOURCES; only modules that fastmix export wrote can be read")


def _parts(value: ast.expr) -> list[Part]:
    try:
        rows = ast.literal_eval(value)
        return [
            Part(str(name), str(path), a_number(weight, str(name))) for name, path, weight in rows
        ]
    except (ValueError, TypeError) as error:
        raise UserError(f"SOURCES must be (name, path, weight) rows: {error}") from None
