"""Is the mixture that a small proxy finds right for a larger model and more tokens?

    python -m data_tools.prepare configs/corpora_demo.yaml --output data/demo
    python -m research.transfer --minutes 20     # again and again until it is done
    python -m research.transfer --table          # the tables of research/transfer.md

Proxies of three sizes search at two token budgets, with two seeds each, and the seeds are pooled
(`fastmix pool`). The largest proxy at the larger budget stands for the large run. Two questions:

1. How far are the other proxies' mixtures from the large run's own, beside what two seeds differ?
2. Fresh models of the large run's size and budget, trained by sampling on every proxy's mixture:
   what do they lose on held-out text of the targets, against uniform and the large run's own?

Both are asked with corpora that no run reads twice (`fresh`), and with the three sources that
matter most cut to a few thousand tokens, so that the large run repeats them (`repeated`). There,
`matched` proxies have them cut further, in the ratio of the budgets, so that a short search repeats
them as often as the large run does (arXiv 2606.07597).

A third question is of constraints: their predicted cost against that of retrained models.

Every run leaves one line in research/results/transfer.jsonl, and is not done again. All runs
share one process, since imports take longer than the smallest runs.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmix_mega.config.constraints import Constraints
from fastmix_mega.config.schema import Config
from fastmix_mega.configuration import load_config, parse_config
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.files import read_jsonl
from fastmix_mega.methods.registry import method_of
from fastmix_mega.mixture.constraints.apply import ConstraintSet, Sources
from fastmix_mega.mixture.file import read_mixture
from fastmix_mega.mixture.simplex import geometric_mean
from research.study_file import StudyFile
from research.transfer_tables import Record, Records, tables

RESULTS = Path(__file__).parent / "results" / "transfer.jsonl"
SIZES = ("tiny", "demo", "1M")
STEPS = {"short": 60, "long": 240}
SEARCH_SEEDS, TRAIN_SEEDS = (1, 2), (101, 102)
LARGE = ("1M", "long")
"""What stands for the large run."""
SCARCE = ("python", "docstrings", "readmes")
SCARCE_TOKENS = 6144
"""Of each scarce source: the large run reads a source with a fifth of its tokens 10 times."""
LIMITS: dict[str, dict[str, Any]] = {
    "junk-0.1": {"sources": {"junk": {"min": 0.1}}},
    "junk-0.3": {"sources": {"junk": {"min": 0.3}}},
    "top-0.05": {"sources": {"docstrings": {"max": 0.05}, "readmes": {"max": 0.05}}},
    "code-0.5": {"groups": {"native": {"sources": ["headers", "cuda", "csource"], "min": 0.6}}},
}
"""Constraints whose predicted cost is compared with retrained models', on the demo's size."""


@dataclass(frozen=True)
class Job:
    """One search or one training run."""

    kind: str
    data: str
    """fresh, repeated or matched."""
    size: str
    budget: str
    seed: int
    mixture: str = ""
    """Of a training run: uniform, or SIZE-BUDGET of a search, or the name of a limit."""
    mixture_data: str = ""
    """On which data the mixture was searched."""

    @property
    def name(self) -> str:
        parts = [self.kind, self.data, self.size, self.budget, str(self.seed)]
        if self.kind == "train":
            parts.insert(4, f"on-{self.mixture_data}-{self.mixture}")
        return "_".join(parts)


def searches() -> Iterator[Job]:
    for data in ("fresh", "repeated"):
        for seed in SEARCH_SEEDS:
            for size in SIZES:
                for budget in STEPS:
                    yield Job("search", data, size, budget, seed)
    for seed in SEARCH_SEEDS:
        for size in SIZES:
            yield Job("search", "matched", size, "short", seed)


def retrains() -> Iterator[Job]:
    """The large run on every proxy's mixture, the most telling ones first."""
    for seed in TRAIN_SEEDS:
        for data in ("fresh", "repeated"):
            yield Job("train", data, *LARGE, seed, "uniform", data)
            for size, budget in (LARGE, ("tiny", "short"), ("demo", "long"), ("1M", "short")):
                yield Job("train", data, *LARGE, seed, f"{size}-{budget}", data)
        for size in ("tiny", "1M"):
            yield Job("train", "repeated", *LARGE, seed, f"{size}-short", "matched")
        yield Job("train", "fresh", "demo", "long", seed, "demo-long", "fresh")
        for name in LIMITS:
            yield Job("train", "fresh", "demo", "long", seed, name, "fresh")
    for seed in TRAIN_SEEDS:
        for data in ("fresh", "repeated"):
            for size, budget in (("tiny", "long"), ("demo", "short")):
                yield Job("train", data, *LARGE, seed, f"{size}-{budget}", data)


def read_records(file: StudyFile) -> Records:
    """The finished runs by name."""
    return {row["job"]: row for row in sorted(file.rows(), key=lambda row: str(row["job"]))}


def configuration(job: Job, directory: Path, records: Records) -> Config:
    """The run of a job; its data are the demo's, cut where the job says so."""
    demo = load_config("configs/demo.yaml").model_dump(mode="json")
    steps = STEPS[job.budget]
    for source in demo["sources"]:
        if job.data != "fresh" and source["name"] in SCARCE:
            source["prefix"] = str(cut(source["prefix"], job.data, directory))
    content = demo | {
        "run_dir": str(directory / "run"),
        "seed": job.seed,
        "model": {"preset": job.size},
        "train": {
            "steps": steps,
            "global_batch": 16,
            "micro_batch": 16,
            "seq_length": 64,
            "schedule": {"peak": 6e-3, "warmup": steps // 16},
        },
        "search": {"every": 4, "warmup": 12, "target_batch": 16, "score_tokens": 1.0},
        "checkpoint": {"final": False},
        "log": {"every": 40, "wandb": "disabled"},
        "guards": {"hang_minutes": 0},
    }
    content["evaluation"] |= {"every": 0}
    if job.kind == "train":
        content["mixture"] = mixture_of(job, demo, records)
    return parse_config(content)


def cut(prefix: str, data: str, directory: Path) -> Path:
    """The source's first tokens as a source of its own."""
    tokens = SCARCE_TOKENS
    if data == "matched":
        tokens = SCARCE_TOKENS * STEPS["short"] // STEPS["long"]
    whole = IndexedTokens(prefix)
    path = directory / "cut" / f"{Path(prefix).name}_{tokens}"
    if not path.with_name(f"{path.name}.json").exists():
        assert whole.manifest is not None
        extra = whole.manifest.model_dump(include={"tokenizer_sha256", "vocab_size", "eod"})
        with IndexedWriter(path, whole.dtype, extra) as writer:
            writer.add_document(whole.tokens[:tokens])
    return path


def mixture_of(job: Job, demo: dict[str, Any], records: Records) -> str | dict[str, float]:
    """Uniform, or the pooled mixture of the seeds' searches, within the limits if there are any."""
    if job.mixture == "uniform":
        return "uniform"
    size, budget = ("demo", "long") if job.mixture in LIMITS else job.mixture.split("-")
    found = [
        records[Job("search", job.mixture_data, size, budget, seed).name] for seed in SEARCH_SEEDS
    ]
    names = [source["name"] for source in demo["sources"]]
    logs = [[np.log(each["weights"][name]) for name in names] for each in found]
    weights = geometric_mean(np.array(logs))
    if job.mixture in LIMITS:
        limits = Constraints.model_validate(LIMITS[job.mixture])
        sources = Sources(names, [None] * len(names))
        weights = ConstraintSet(limits, sources, job.mixture).apply(weights).weights
    return dict(zip(names, (weights / weights.sum()).tolist(), strict=True))


def do(job: Job, records: Records) -> Record:
    """Run it; returns its record.

    Args:
        job: a training's searches must be done.
        records: of the finished runs.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = configuration(job, Path(folder), records)
        started = time.perf_counter()
        method_of(config, "search" if job.kind == "search" else "train").search()
        seconds = time.perf_counter() - started
        mixture = read_mixture(Path(config.run_dir) / "mixture.json")
        rows = read_jsonl(Path(config.run_dir) / "metrics.jsonl")
        shutil.rmtree(config.run_dir)
    record: Record = {
        "job": job.name,
        "weights": {source.name: round(source.weight, 6) for source in mixture.sources},
        "losses": next(row["eval"] for row in reversed(rows) if "eval" in row),
        "epochs": {s.name: round(s.epochs_at_budget or 0, 3) for s in mixture.sources},
        "tokenizer": mixture.tokenizer["sha256"],
        "seconds": round(seconds, 1),
    }
    if job.kind == "search":
        record["stderr"] = {source.name: round(source.stderr, 6) for source in mixture.sources}
        record["gains"] = {source.name: source.gain for source in mixture.sources}
        record["gain_scale"] = mixture.search["gain_scale"]
        record["cost_in_proxy_runs"] = mixture.search["cost_in_proxy_runs"]
    return record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="begin no run after as long")
    parser.add_argument("--table", action="store_true", help="print the tables and end")
    options = parser.parse_args()
    file = StudyFile(RESULTS)
    if options.table:
        print(tables(read_records(file), list(LIMITS)))
        return
    records = read_records(file)
    until = time.monotonic() + 60 * options.minutes
    left = [job for job in (*searches(), *retrains()) if job.name not in records]
    for number, job in enumerate(left, start=1):
        if time.monotonic() > until:
            print(f"{len(left) - number + 1} runs are left; start it again to go on")
            return
        record = records[job.name] = do(job, records)
        file.append(record)
        print(f"{number} of {len(left)}: {job.name}", flush=True)
    print("done: see --table")


if __name__ == "__main__":
    main()
