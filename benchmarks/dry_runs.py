"""`fastmix plan` against the dry run, for the shipped configurations on 8 and on 1,024 GPUs:

    python -m benchmarks.dry_runs [NAME ...]

A dry run needs no GPU (`fastmix plan --dry-run`). A line is printed as soon as it is known; it
ends with exit code 1 if a plan is further than 5% from its dry run.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from fastmix_mega.configuration import load_config
from fastmix_mega.planning.describe_dry_run import planned
from fastmix_mega.planning.dry_run import dry_runs, ranks_to_run

TOLERANCE = 0.05


@dataclass(frozen=True)
class Case:
    config: str
    gpus: int
    mode: str = "train"
    overrides: list[str] = field(default_factory=list)


PROXY = ["model.vocab_size=32000", "tokenizer=/nowhere"]
CASES = {
    "150M, search, 8": Case("proxy_150m", 8, "search", PROXY),
    "7B, search, 32, TP2 + sequence": Case(
        "large_7b", 32, "search", ["parallel.tensor=2", "parallel.sequence=true"]
    ),
    "1B, 8": Case("large_1b", 8),
    "1B, 1,024": Case("large_1b", 1024, "train", ["train.global_batch=4096"]),
    "7B, 8": Case("large_7b", 8),
    "7B, 1,024, TP8 x PP4": Case(
        "large_7b", 1024, "train", ["parallel.tensor=8", "parallel.pipeline=4"]
    ),
    "7B, 1,024, TP4 x CP2": Case(
        "large_7b", 1024, "train", ["parallel.tensor=4", "parallel.context=2"]
    ),
    "7B, 64, full recomputation": Case("large_7b", 64, "train", ["train.recompute=full"]),
    "70B, 1,024": Case("large_70b", 1024),
}


def compare(case: Case) -> list[tuple[int, float, float]]:
    """Of the ranks that need most: (rank, bytes of the dry run, bytes of the plan)."""
    config = load_config(f"configs/{case.config}.yaml", case.overrides)
    found = dry_runs(config, case.gpus, case.mode, ranks_to_run(config, case.gpus))
    return [
        (run.rank, run.total, planned(config, case.gpus, case.mode, run.place["pipeline"]).total)
        for run in found
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}")
    wrong = 0
    print("| run | rank | dry run GB | plan GB | ratio |\n|---|---:|---:|---:|---:|", flush=True)
    for name in parser.parse_args().names or CASES:
        for rank, seen, said in compare(CASES[name]):
            wrong += abs(said / seen - 1) > TOLERANCE
            line = f"| {name} | {rank} | {seen / 1e9:.2f} | {said / 1e9:.2f} | {said / seen:.3f} |"
            print(line, flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
