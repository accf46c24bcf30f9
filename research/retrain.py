"""Is the found mixture better than uniform? Fresh models, trained by sampling, on unseen text.

    python -m research.retrain configs/demo.yaml --mixture runs/demo/mixture.json \\
        --seeds 101 102 103 --nproc 2 --output runs/retrain

Every mixture is trained with every seed by `fastmix train` (loss weights play no part), and judged
on the configuration's evaluation sets, which no search has seen. Mixtures share their seeds, so
that differences are paired. Finished runs are kept: start it again to go on. The last lines are a
table: mean loss, SD over seeds, and the paired difference to the first mixture with its standard
error.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from fastmix_mega.configuration import load_config
from fastmix_mega.files import read_jsonl
from fastmix_mega.mixture.file import read_mixture


def final_losses(run_dir: Path) -> dict[str, float] | None:
    """The last evaluation of a finished run (one that has a mixture.json)."""
    if not (run_dir / "mixture.json").is_file():
        return None
    rows = [row["eval"] for row in read_jsonl(run_dir / "metrics.jsonl") if "eval" in row]
    return rows[-1] if rows else None


def train(config: str, mixture: str, seed: int, processes: int, run_dir: Path) -> dict[str, float]:
    """One run, unless it is already there."""
    found = final_losses(run_dir)
    if found is None:
        command = [
            *(sys.executable, "-m", "fastmix_mega", "train", config, "--nproc", str(processes)),
            *(f"mixture={mixture}", f"seed={seed}", f"run_dir={run_dir}"),
            *("log.wandb=disabled", "evaluation.every=0", "log.every=100"),
        ]
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{run_dir}.log").open("wb") as log:
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
        found = final_losses(run_dir)
    assert found is not None, f"{run_dir} holds no evaluation"
    return found


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Rows of mixtures by evaluation sets; differences are paired by seed with the first."""
    first = next(iter(results))
    lines = ["| mixture | target | mean loss | SD | minus " + first + " | standard errors |"]
    lines.append("|---|---|---|---|---|---|")
    for name, runs in results.items():
        for target in runs[0]:
            losses = [run[target] for run in runs]
            pairs = zip(losses, (run[target] for run in results[first]), strict=True)
            gaps = [mine - theirs for mine, theirs in pairs]
            line = (
                f"| {name} | {target} | {statistics.mean(losses):.4f} | {_deviation(losses):.4f} "
            )
            if name != first:
                error = _deviation(gaps) / len(gaps) ** 0.5
                sigmas = statistics.mean(gaps) / error if error else float("nan")
                line += f"| {statistics.mean(gaps):+.4f} ± {error:.4f} | {sigmas:+.1f} |"
            else:
                line += "| | |"
            lines.append(line)
    return "\n".join(lines)


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--mixture", nargs="+", required=True, help="mixture.json files or names")
    parser.add_argument("--baseline", default="uniform")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--nproc", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/retrain"))
    options = parser.parse_args()
    sets = load_config(options.config).evaluation.sets
    if not sets:
        parser.error(f"{options.config} has no evaluation.sets to judge on")
    results: dict[str, list[dict[str, float]]] = {}
    for mixture in [options.baseline, *options.mixture]:
        name = mixture
        if mixture.endswith(".json"):
            read_mixture(mixture)
            name = Path(mixture).parent.name
        results[name] = []
        for seed in options.seeds:
            run_dir = options.output / f"{name}_{seed}"
            losses = train(options.config, mixture, seed, options.nproc, run_dir)
            results[name].append(losses)
            print(f"{name} seed {seed}: {losses}", flush=True)
    print(f"\n{len(options.seeds)} paired seeds, {options.config}\n\n{table(results)}")


if __name__ == "__main__":
    main()
