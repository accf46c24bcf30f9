"""Does a plan of two phases serve two targets better than one mixture for both?

    python -m research.phases data/demo --output runs/phases

DATA is what `make demo` prepares. For every seed a search for both targets over the whole budget,
and the plans of PLANS, each searched in two phases and exported. All mixtures, and uniform, are
then trained in one run each over the whole budget with the same seed, and judged on held-out text
of both targets. The learning rate is level in the first phase and falls in the second, as in large
runs; the plans' proxies have the same. Finished runs are kept: start again to go on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fastmix_mega.files import write_json
from fastmix_mega.mixture.file import read_mixture
from research.paired import command, gap, last_losses, run

TARGETS = ("average", "unseen")
PLANS = {
    "one-each": ({"average": 1}, {"unseen": 1}),
    "tilted": ({"average": 2, "unseen": 1}, {"average": 1, "unseen": 2}),
}
"""The targets' weights in both phases."""
STEPS = (400, 100)
STEP_TOKENS = 16 * 128
PEAK, WARMUP = 6e-3, 20
LEVEL = {"kind": "constant", "peak": PEAK, "warmup": WARMUP}
FALLING = {"kind": "wsd", "peak": PEAK, "warmup": 5, "decay": 0.95}
WHOLE = {"kind": "wsd", "peak": PEAK, "warmup": WARMUP, "decay": STEPS[1] / sum(STEPS)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/phases"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--plans", nargs="+", choices=list(PLANS), default=list(PLANS))
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        for name, mixed in _mixtures(options, seed).items():
            folder = options.output / f"train_{name}_{seed}"
            run("train", _settings(options.data, seed) | mixed, folder)
            found = {"told": mixed, "losses": last_losses(folder)}
            rows.append({"seed": seed, "mixture": name} | found)
            print(name, seed, rows[-1]["losses"], flush=True)
    summary = _summary(rows)
    write_json(options.output / "result.json", {"rows": rows, "summary": summary})
    print("\n".join(summary))
    return 0


def _mixtures(options: argparse.Namespace, seed: int) -> dict[str, dict[str, Any]]:
    """What `fastmix train` is told of the mixture, by its name."""
    data, output = options.data, options.output
    single = output / f"search_single_{seed}"
    run(
        "search",
        _settings(data, seed) | {"targets": _targets(data, dict.fromkeys(TARGETS, 1))},
        single,
    )
    found: dict[str, dict[str, Any]] = {
        "single": {"mixture": read_mixture(single / "mixture.json").weights},
    }
    for name in options.plans:
        folder = output / f"search_{name}_{seed}"
        settings = _settings(data, seed)
        settings["targets"] = _targets(data, PLANS[name][0])
        run("search", settings | {"phases": _phases(data, name)}, folder)
        plan = output / f"plan_{name}_{seed}.yaml"
        words = ["export", str(folder), "--to", "fastmix-stages", "--output", str(plan)]
        command(words, plan.with_suffix(".log"))
        found[name] = yaml.safe_load(plan.read_text())
    return found | {"uniform": {"mixture": "uniform"}}


def _phases(data: Path, plan: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "tokens": steps * STEP_TOKENS,
            "steps": steps,
            "schedule": schedule,
            "targets": _targets(data, weights),
        }
        for name, steps, schedule, weights in zip(
            ("level", "falling"), STEPS, (LEVEL, FALLING), PLANS[plan], strict=True
        )
    ]


def _targets(data: Path, weights: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {"name": name, "prefix": str(data / "targets" / name), "weight": weight}
        for name, weight in weights.items()
    ]


def _settings(data: Path, seed: int) -> dict[str, Any]:
    """Of the demo, but over the whole budget."""
    sources = sorted(path.stem for path in (data / "sources").glob("*.idx"))
    return {
        "seed": seed,
        "tokenizer": str(data / "tokenizer.model"),
        "sources": [{"name": n, "prefix": str(data / "sources" / n)} for n in sources],
        "evaluation": {
            "sequences": 256,
            "sets": [{"name": n, "prefix": str(data / "judge" / n)} for n in TARGETS],
        },
        "model": {"preset": "demo"},
        "train": {
            "steps": sum(STEPS),
            "global_batch": 16,
            "micro_batch": 4,
            "seq_length": 128,
            "schedule": WHOLE,
        },
        "search": {"every": 8},
        "checkpoint": {"final": False},
        "log": {"wandb": "disabled"},
    }


def _summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Losses above the single mixture's, paired by seed."""
    by = {(row["mixture"], row["seed"]): row["losses"] for row in rows}
    names = dict.fromkeys(row["mixture"] for row in rows)
    seeds = dict.fromkeys(row["seed"] for row in rows)
    lines = []
    for name in names:
        for judge, sets in [(each, [each]) for each in TARGETS] + [("their mean", list(TARGETS))]:
            mean = {
                arm: [sum(by[arm, s][each] for each in sets) / len(sets) for s in seeds]
                for arm in (name, "single")
            }
            if name != "single":
                lines.append(gap(f"{name} - single, {judge}", mean[name], mean["single"]))
    return lines


if __name__ == "__main__":
    sys.exit(main())
