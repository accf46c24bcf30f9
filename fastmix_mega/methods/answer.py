"""The mixture of a method that has no training loop of its own, in the files of every search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fastmix_mega.arrays import FloatArray
from fastmix_mega.config.schema import Config
from fastmix_mega.data.inputs import Inputs
from fastmix_mega.mixture.file import MixtureFile, MixtureSource, versions
from fastmix_mega.mixture.simplex import effective_sources, entropy


def answer(
    config: Config,
    inputs: Inputs,
    weights: FloatArray,
    cost: float,
    warnings: list[str],
    more: dict[str, Any] | None = None,
) -> MixtureFile:
    """The mixture file.

    Args:
        config: of the search; its `method` is named in the file.
        inputs: of the search.
        weights: [S], sum 1.
        cost: in proxy runs, everything included.
        warnings: what a reader must know.
        more: further fields of `search`.
    """
    return MixtureFile(
        sources=[
            MixtureSource(
                name=given.name, weight=float(share), prefix=given.prefix, tokens=source.num_tokens
            )
            for given, source, share in zip(config.sources, inputs.sources, weights, strict=True)
        ],
        targets=[target.model_dump(mode="json") for target in config.targets],
        tokenizer={
            "path": config.tokenizer,
            "sha256": inputs.tokenizer.sha256,
            "vocab_size": inputs.tokenizer.vocab_size,
        },
        search={
            "method": config.method,
            "config_sha256": config.fingerprint(),
            "seed": config.seed,
            "cost_in_proxy_runs": round(cost, 4),
            "entropy": entropy(weights),
            "effective_sources": effective_sources(weights),
            "warnings": warnings,
            **(more or {}),
        },
        versions=versions(),
    )


def finish(config: Config, mixture: MixtureFile) -> None:
    """Write mixture.json and the report, and say where they are. On rank 0."""
    from fastmix_mega.export.export import describe
    from fastmix_mega.report.build import build_report

    directory = Path(config.run_dir)
    path = directory / "mixture.json"
    mixture.write(path)
    lines = [*describe(mixture, None), f"mixture: {path}", f"report:  {build_report(directory)}"]
    print("\n".join(lines), file=sys.stderr)
