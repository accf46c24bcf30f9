"""Run folders as a search or a training run writes them, of any size, for the report's tests.

python -m tests.fastmix_mega.report.samples DIRECTORY      writes one folder a case, to look at
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fastmix_mega.cli.seeds import pool_runs
from fastmix_mega.files import write_json
from fastmix_mega.mixture.simplex import effective_sources, entropy, geometric_mean, softmax
from tests.fastmix_mega.report.surface_samples import add_surface

NAMES = ("docs", "headers", "code", "web", "markdown", "stubs", "licences", "junk")
HOSTILE = (
    "</script><script>document.title='owned'</script>",
    '"><img src=x onerror=document.title="owned">',
    "<!--",
    "a&amp;b 'quoted' \u2028 {{ 7 * 7 }}",
)
LONG = tuple(
    f"commoncrawl_2023_{n:02d}_english_filtered_deduplicated_part_{n:03d}" for n in range(8)
)

LIMITS: dict[str, Any] = {
    "budget_tokens": 3_000_000,
    "max_epochs": 6.0,
    "sources": {"junk": {"max": 0.01}, "web": {"min": 0.125}},
    "groups": {"text": {"sources": ["docs", "web"], "max": 0.45}},
}


def write_run(
    directory: Path,
    names: tuple[str, ...] = NAMES,
    *,
    outer_steps: int = 47,
    every: int = 8,
    finished: bool = True,
    training: bool = False,
    absent: float = 0.0,
    estimates_errors: bool = True,
    tokens_per_source: int = 400_000,
    targets: tuple[str, ...] = ("unseen", "average"),
    minimax: bool = False,
    constraints: dict[str, Any] | None = None,
    surface: bool = False,
    seed: int = 0,
    seeds: int = 0,
) -> Path:
    """Write a run folder: a search with `outer_steps`, or a training run of as many steps.

    Args:
        directory: the run folder.
        names: of the sources.
        finished: whether mixture.json is there.
        training: a training run: no history.
        absent: the share of source losses that are null.
        estimates_errors: False writes zeros as the mixture's standard errors.
        tokens_per_source: the sources' mean size.
        targets: their names.
        minimax: whether the targets' weights move.
        constraints: recorded as the search's; the weights are not changed.
        surface: whether the answer comes from a loss surface.
        seeds: more than 0 write as many searches into the folder, and pool them.
    """
    if seeds:
        given = {"outer_steps": outer_steps, "every": every, "absent": absent}
        runs = [
            write_run(directory / f"seed_{number}", names, seed=number, **given)
            for number in range(1, seeds + 1)
        ]
        pool_runs(runs, directory / "mixture.json")
        return directory
    directory.mkdir(parents=True)
    random = np.random.default_rng(seed)
    count, batch, length, warmup = len(names), 16, 128, 24
    steps = warmup + every * outer_steps
    pull = np.sort(random.normal(0, 1, count))[::-1]
    pull[-1] -= 1.5
    rows: list[dict[str, Any]] = []
    logits = np.zeros(count)
    for number in range(outer_steps):
        before = softmax(logits)
        error = 0.25 * (1 + random.random(count))
        scores = (
            6
            * np.exp(-number / 30)
            * (0.5 + pull - 0.7 * logits + error * random.normal(size=count))
        )
        logits = logits + 0.2 * (scores - before @ scores) / max(
            np.abs(scores - scores.mean()).max(), 1e-9
        )
        mixture = softmax(logits)
        step = warmup + every * (number + 1)
        rows.append(
            {
                "outer_step": number + 1,
                "step": step,
                "tokens": step * batch * length,
                "mixture": mixture.tolist(),
                "mixture_stderr": (0.1 * mixture * (1 - mixture) * number**0.5).tolist(),
                "sampling": (0.5 * before + 0.5 / count).tolist(),
                "scores": scores.tolist(),
                "score_stderr": (6 * np.exp(-number / 30) * error).tolist(),
                "counts": random.multinomial(every * batch, 0.5 * before + 0.5 / count).tolist(),
                "target_loss": {
                    name: 4.9 - 0.5 * k + 2 * np.exp(-step / 120) + random.normal(0, 0.1)
                    for k, name in enumerate(targets)
                },
                "entropy": entropy(mixture),
                "effective_sources": effective_sources(mixture),
                "seconds": 0.05,
            }
        )
    by_target = [_add_targets(np.random.default_rng(seed + 1), row, pull, minimax) for row in rows]
    weights = softmax(pull) if training else np.full(count, 1 / count)
    if rows and not training:
        half = np.log([row["mixture"] for row in rows[len(rows) // 2 :]])
        weights = geometric_mean(half)
    _write_lines(directory / "history.jsonl", [] if training else rows)
    if training:
        (directory / "history.jsonl").unlink()
    metrics = _metrics(random, count, steps, batch, length, absent)
    _write_lines(directory / "metrics.jsonl", metrics)
    sizes = (tokens_per_source * random.lognormal(0, 0.8, count)).astype(int) + 1
    sources = [{"name": name, "prefix": f"data/{index}"} for index, name in enumerate(names)]
    target_entries: list[dict[str, Any]] = [
        {"name": name, "prefix": f"data/{name}", "weight": 1.0} for name in targets
    ]
    config = {
        "run_dir": str(directory),
        "seed": seed,
        "method": "fastmix",
        "mixture": "uniform",
        "sources": sources,
        "targets": target_entries,
        "model": {"preset": "1M"},
        "train": {"steps": steps, "global_batch": batch, "seq_length": length},
        "search": {"every": every, "warmup": warmup, "initial": "uniform"},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    if not finished:
        return directory
    budget = steps * batch * length
    errors = 0.12 * weights * (1 - weights) * (1 + random.random(count))
    if training or not estimates_errors:
        errors = np.zeros(count)
    write_json(
        directory / "mixture.json",
        {
            "schema": "fastmix-mixture/1",
            "unit": "tokens",
            "sources": [
                source
                | {
                    "weight": float(weight),
                    "stderr": float(error),
                    "tokens": int(size),
                    "epochs_at_budget": float(weight * budget / size),
                    "gain": None if training else float(force),
                    "data_sha256": [f"{int(size):064x}"],
                }
                for source, weight, error, size, force in zip(
                    sources, weights, errors, sizes, pull, strict=True
                )
            ],
            "targets": [
                entry | ({} if training else more)
                for entry, more in zip(
                    target_entries, _by_name(by_target, names, len(targets)), strict=True
                )
            ],
            "tokenizer": {"path": "tokenizer.model", "sha256": "5f" * 32, "vocab_size": 4096},
            "search": {
                "method": "fixed" if training else "fastmix",
                "objective": "minimax" if minimax else "mean",
                "config_sha256": "ab" * 32,
                "seed": seed,
                "steps": steps,
                "outer_steps": 0 if training else outer_steps,
                "train_tokens": budget,
                "cost_in_proxy_runs": 1.0 if training else 1.0832,
                "world_size": 2,
                "layout": {"data": 2, "tensor": 1, "pipeline": 1, "context": 1, "zero": 1},
                "entropy": entropy(weights),
                "effective_sources": effective_sources(weights),
                "warnings": ["The search was short."] if outer_steps < 10 else [],
                "device": "cpu",
                "code_sha256": "cd" * 32,
                **({} if constraints is None else {"constraints": constraints}),
            },
            "versions": {"fastmix-mega": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        },
    )
    if surface:
        add_surface(directory)
    return directory


def _add_targets(
    random: np.random.Generator, row: dict[str, Any], pull: np.ndarray, minimax: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of every target by itself, into the row; returned too with their errors, [K, S]."""
    count = len(row["target_loss"])
    scores = np.stack([np.roll(pull, k) + 1.0 for k in range(count)])
    scores = scores * np.array([4.0 / (1 + k) for k in range(count)])[:, None]
    errors = 0.3 + 0.5 * random.random(scores.shape)
    row["target_scores"], row["target_score_stderr"] = scores.tolist(), errors.tolist()
    lean = 0.03 * row["outer_step"] * np.arange(count) if minimax else np.zeros(count)
    row["target_weights"] = softmax(lean).tolist()
    if minimax:
        row["target_reference"] = [5.5 - 0.6 * k for k in range(count)]
    return scores, errors


def _by_name(
    by_target: list[tuple[np.ndarray, np.ndarray]], names: tuple[str, ...], targets: int
) -> list[dict[str, Any]]:
    """What mixture.json holds of every target."""
    if not by_target:
        return [{}] * targets
    scores, errors = by_target[-1]
    return [
        {
            "share": 1 / targets,
            "scores": dict(zip(names, scores[k].tolist(), strict=True)),
            "score_stderr": dict(zip(names, errors[k].tolist(), strict=True)),
        }
        for k in range(targets)
    ]


def _metrics(
    random: np.random.Generator, count: int, steps: int, batch: int, length: int, absent: float
) -> list[dict[str, Any]]:
    drawn = np.zeros(count, int)
    floor = 4 + random.random(count)
    lines: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        drawn += random.multinomial(10 * batch, np.full(count, 1 / count))
        losses = floor + 5 * np.exp(-step / 60) + random.normal(0, 0.15, count)
        gone = random.random(count) < absent
        lines.append(
            {
                "step": step,
                "tokens": step * batch * length,
                "loss": float(losses.mean()),
                "learning_rate": 3e-3,
                "grad_norm": 1.0,
                "tokens_per_second": 14000.0 + float(random.normal(0, 300)),
                "source_loss": [
                    None if out else float(loss) for out, loss in zip(gone, losses, strict=True)
                ],
                "source_count": drawn.tolist(),
                "ranks": {
                    "step_seconds": [0.4, 0.4],
                    "data_seconds": [0.01, 0.02],
                    "forward_seconds": [0.1, 0.16],
                    "wait_seconds": [0.1, None],
                },
                "restarts": step // 100,
                "layout_changes": step // 100,
            }
        )
    lines.append({"step": steps, "eval": {"unseen": 5.0123, "average": 4.4567}})
    return lines


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one_outer_step": {"outer_steps": 1, "every": 1, "names": NAMES[:3]},
    "many_sources": {
        "names": tuple(f"source_{n:03d}" for n in range(200)),
        "outer_steps": 300,
        "absent": 0.9,
    },
    "one_source": {"names": ("only",)},
    "long_names": {"names": LONG},
    "hostile_names": {"names": HOSTILE},
    "null_losses": {"absent": 1.0},
    "running": {"finished": False},
    "started": {"finished": False, "outer_steps": 0},
    "training": {"training": True},
    "training_running": {"training": True, "finished": False},
    "no_errors": {"estimates_errors": False},
    "repeated": {"tokens_per_source": 20_000},
    "minimax": {"minimax": True, "targets": ("code", "answers", "choices")},
    "hostile_targets": {"targets": HOSTILE, "minimax": True},
    "many_targets": {
        "names": tuple(f"source_{n:03d}" for n in range(40)),
        "targets": tuple(f"a_target_with_a_long_name_{n}" for n in range(14)),
    },
    "pooled": {"seeds": 3},
    "limited": {"constraints": LIMITS},
    "surface": {"surface": True},
    "surface_many": {
        "surface": True,
        "names": tuple(f"source_{n:03d}" for n in range(24)),
        "targets": ("code", "answers", *(f"a_target_with_a_long_name_{n}" for n in range(3))),
    },
}


if __name__ == "__main__":
    from fastmix_mega.report.build import build_report

    for case, settings in CASES.items():
        print(build_report(write_run(Path(sys.argv[1]) / case, **settings)))
