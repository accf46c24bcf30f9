"""Does a proxy that repeats its text as the large run does find a better mixture?

    python -m research.match_repetition DATA --output runs/match_repetition

DATA is what `make demo` prepares. One source, docstrings, is cut to a scarce rest; the target is
held-out text of the same kind. For every seed two searches, with and without
`search.match_repetition`; both mixtures, and uniform, are then trained at four times the budget
with the same seed, and judged on other held-out text. Finished runs are kept: start again to go on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.files import write_json
from fastmix_mega.mixture.file import read_mixture
from research.paired import gap, last_losses, run

RICH = ("python", "readmes", "csource", "tests")
SCARCE = "docstrings"
RATIO = 4


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/match_repetition"))
    parser.add_argument("--steps", type=int, default=150, help="of the proxy, 1,024 tokens each")
    parser.add_argument("--scarce-tokens", type=int, default=15_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    _prepare(options.data, options.output, options.scarce_tokens)
    rows = []
    for seed in options.seeds:
        mixtures: dict[str, Any] = {"uniform": "uniform"}
        for name, matched in (("plain", False), ("matched", True)):
            folder = options.output / f"search_{name}_{seed}"
            run("search", _settings(options, seed, options.steps, matched), folder)
            mixtures[name] = str(folder / "mixture.json")
        for name, mixture in mixtures.items():
            folder = options.output / f"train_{name}_{seed}"
            settings = _settings(options, seed, RATIO * options.steps, False)
            run("train", settings | {"mixture": mixture}, folder)
            rows.append(_row(seed, name, mixture, folder))
            print(rows[-1], flush=True)
    write_json(options.output / "result.json", {"rows": rows, "summary": _summary(rows)})
    print("\n".join(_summary(rows)))
    return 0


def _prepare(data: Path, output: Path, tokens: int) -> None:
    """The scarce source, and the held-out text in two halves: target and judge."""
    whole = IndexedTokens(data / "sources" / SCARCE)
    _copy(whole, output / "scarce", 0, tokens)
    heldout = IndexedTokens(data / "heldout" / SCARCE)
    _copy(heldout, output / "target", 0, heldout.num_tokens // 2)
    _copy(heldout, output / "judge", heldout.num_tokens // 2, heldout.num_tokens)


def _copy(file: IndexedTokens, prefix: Path, first: int, last: int) -> None:
    """Documents that begin within the tokens [first, last)."""
    if Path(f"{prefix}.manifest.json").exists():
        return
    assert file.manifest is not None
    keys = ("tokenizer_sha256", "vocab_size", "eod")
    manifest = {key: getattr(file.manifest, key) for key in keys}
    starts = np.asarray(file.offsets) // file.dtype.itemsize
    with IndexedWriter(prefix, file.dtype, manifest) as writer:
        for start, length in zip(starts, file.lengths, strict=True):
            if first <= start < last:
                writer.add_document(file.tokens[start : start + int(length)])


def _settings(options: argparse.Namespace, seed: int, steps: int, matched: bool) -> dict[str, Any]:
    own = options.output
    sources = [{"name": n, "prefix": str(options.data / "sources" / n)} for n in RICH]
    budget = RATIO * options.steps * 1024
    return {
        "seed": seed,
        "tokenizer": str(options.data / "tokenizer.model"),
        "sources": [*sources, {"name": SCARCE, "prefix": str(own / "scarce")}],
        "targets": [{"name": "target", "prefix": str(own / "target")}],
        "evaluation": {"sets": [{"name": "judge", "prefix": str(own / "judge")}]},
        "model": {"preset": "demo"},
        "train": {
            "steps": steps,
            "global_batch": 8,
            "micro_batch": 8,
            "seq_length": 128,
            "schedule": {"kind": "cosine", "peak": 6e-3, "warmup": 20},
        },
        "search": {
            "every": 8,
            "match_repetition": matched,
            "constraints": {"budget_tokens": budget},
        },
        "checkpoint": {"final": False},
        "log": {"wandb": "disabled"},
    }


def _row(seed: int, name: str, mixture: str, folder: Path) -> dict[str, Any]:
    share = 1 / (len(RICH) + 1)
    if mixture != "uniform":
        share = read_mixture(mixture).weights[SCARCE]
    loss = last_losses(folder)["judge"]
    return {"seed": seed, "mixture": name, "scarce_share": share, "loss": loss}


def _summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Differences to the plain search, paired by seed."""
    by = {(row["mixture"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    plain = [by["plain", s]["loss"] for s in seeds]
    lines = [
        gap(f"{name} - plain", [by[name, s]["loss"] for s in seeds], plain)
        for name in ("uniform", "matched")
    ]
    for name in ("plain", "matched"):
        shares = [by[name, s]["scarce_share"] for s in seeds]
        lines.append(f"{name}: share of the scarce source {np.mean(shares):.3f} ({shares})")
    return lines


if __name__ == "__main__":
    sys.exit(main())
