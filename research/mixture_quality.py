"""The judge: how good are the mixtures that a search finds, and at what cost?

    python -m research.mixture_quality FAMILY.yaml ... [--minutes 10] [--methods doge odm]

For every target of a family (research/quality/configs/demo.yaml and debian.yaml) mixtures come
from one-run searches, fits to a swarm of Dirichlet mixtures, token pairs, single sources; each is
judged by fresh models trained on it *by sampling*, with seeds paired between mixtures, on text that
no search has seen. One training is judged on all targets; a search serves one.

`--chart research/bigram_regime.svg` draws quality against cost.

Every finished run is a line of RESULTS/FAMILY.jsonl; started again it goes on where it stopped, in
rounds, so that what is there is always a table (`quality/jobs.py`). Without --minutes it only
prints the tables (research/bigram_regime.md says how to read them) and how many runs are missing.

The corpora are made by `make quality-corpora`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from research.forked import warm_up
from research.quality.chart import chart, points
from research.quality.jobs import SEARCHES, Job, Plan
from research.quality.mixtures import weights_for
from research.quality.records import Record, Records
from research.quality.rules import TRIALS
from research.quality.runs import Family, check_once, search, train
from research.quality.table import entries, report

RESULTS = Path("research/results/mixture_quality")


def pending(plan: Plan, records: Records) -> list[Job]:
    return [job for job in plan.jobs() if records.get(job.kind, job.name, job.seed) is None]


def run_job(job: Job, family: Family, records: Records) -> bool:
    """Do a job and keep its record; False if the runs that it rests on are missing."""
    if job.kind == "search":
        found = search(family, job.target, job.seed, SEARCHES[job.method])
        file, seconds = found.file, found.cpu_seconds
        details: dict[str, Any] = {key: file.search[key] for key in ("warnings", "outer_steps")}
        details["standard_errors"] = [source.stderr for source in file.sources]
        details["gains"] = [source.gain for source in file.sources]
        details["history"] = found.history
        if "predicted_gain" in file.search:
            details["predicted_gain"] = file.search["predicted_gain"][job.target]
        weights = [source.weight for source in file.sources]
        cost = float(file.search["cost_in_proxy_runs"])
        record = Record("search", job.name, job.seed, weights, {}, cost, round(seconds, 2), details)
    else:
        chosen = weights_for(job, family, records)
        if chosen is None:
            return False
        losses, seconds = train(family, chosen.tolist(), job.seed)
        record = Record(
            "train", job.name, job.seed, chosen.tolist(), losses, 1.0, round(seconds, 2)
        )
    records.add(record)
    return True


def work(plans: Sequence[tuple[Plan, Family, Records]], minutes: float) -> None:
    """Do pending jobs, each family in turn, until the time is over or none is left."""
    end = time.monotonic() + 60 * minutes
    blocked: set[tuple[str, Job]] = set()
    while True:
        done = 0
        for plan, family, records in plans:
            for job in pending(plan, records):
                if (family.name, job) in blocked:
                    continue
                if time.monotonic() > end:
                    return
                if run_job(job, family, records):
                    print(f"{family.name}: {job.kind} {job.name} seed {job.seed}", flush=True)
                    done += 1
                    break
                blocked.add((family.name, job))
        if done:
            blocked.clear()
        else:
            return


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", type=Path, nargs="+", help="configurations of families")
    parser.add_argument("--minutes", type=float, default=0.0, help="0 only prints the tables")
    parser.add_argument("--methods", nargs="*", default=[], choices=list(SEARCHES))
    parser.add_argument("--trials", nargs="*", default=[], choices=list(TRIALS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--chart", type=Path, help="where to draw quality against cost, as an SVG")
    options = parser.parse_args()
    plans = []
    for path in options.families:
        family = Family(path)
        plan = Plan(family.config.source_names, family.targets, options.methods, options.trials)
        plans.append((plan, family, family.records(options.results)))
    if options.minutes > 0:
        warm_up()
        for _, family, _ in plans:
            check_once(family)
        work(plans, options.minutes)
    for plan, family, records in plans:
        left = pending(plan, records)
        print(report(family.name, family.config.source_names, family.targets, records))
        print(f"\n{family.name}: {len(left)} of {len(plan.jobs())} runs are missing")
    if options.chart:
        options.chart.write_text(
            chart(
                {
                    f"{family.name}: {target}": points(entries(target, records))
                    for _, family, records in plans
                    for target in family.targets
                }
            )
        )


if __name__ == "__main__":
    main()
