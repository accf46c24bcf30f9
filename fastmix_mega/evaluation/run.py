"""`fastmix eval`: a checkpoint's held-out losses, or tasks of lm-evaluation-harness on it.

fastmix eval RUN [--nproc N] [key.path=value ...]
fastmix eval RUN --tasks hellaswag,my_task [--include-path FOLDER] [--limit N] [--num-fewshot N]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fastmix_mega.config.schema import Config
from fastmix_mega.configuration import load_config
from fastmix_mega.data.run_inputs import open_inputs
from fastmix_mega.errors import UserError
from fastmix_mega.evaluation import harness
from fastmix_mega.evaluation.model import AnsweringModel
from fastmix_mega.files import write_json
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.planning.rules import problems
from fastmix_mega.training.engine.batches import even_micro_batches
from fastmix_mega.training.engine.engine import TrainingEngine
from fastmix_mega.weights.runs import RunWeights


@dataclass(frozen=True)
class Evaluation:
    """What is asked for."""

    run: str
    """A run folder (its newest checkpoint) or one checkpoint."""
    overrides: list[str] = field(default_factory=list)
    """Of the run's configuration; its layout is one process unless they say otherwise."""
    tasks: list[str] = field(default_factory=list)
    """Of lm-evaluation-harness; none asks for held-out losses."""
    include_paths: list[str] = field(default_factory=list)
    shots: int | None = None
    limit: int | None = None
    batch: int = 8
    output: Path | None = None
    """The JSON file; by default in the run folder's `evaluations`."""


def evaluate(asked: Evaluation) -> None:
    """Run it, print a table and write JSON; on rank 0. Collective.

    Raises:
        UserError: if the checkpoint, the layout, the data or a task cannot be used.
    """
    weights = RunWeights(asked.run)
    config = _configuration(weights, asked.overrides)
    manager = harness.find_tasks(asked.tasks, asked.include_paths) if asked.tasks else None
    output = asked.output or _default_output(weights, bool(asked.tasks))
    with parallel_layout.start(config.parallel) as layout:
        _whole(weights, layout)
        if manager is None:
            found, table = held_out_losses(config, weights, layout)
        else:
            found, table = _tasks(config, weights, layout, asked, manager)
        if layout.is_main:
            identity = weights.identity()
            write_json(output, {"checkpoint": identity} | found)
            print(f"{identity['path']}\n{table}\n{output}")


def held_out_losses(
    config: Config, weights: RunWeights, layout: Layout
) -> tuple[dict[str, Any], str]:
    """Losses of the configuration's evaluation sets, targets and held-out ends of sources.

    Returns:
        For JSON, and for people. Collective.
    """
    inputs = open_inputs(config)
    sets = [*inputs.evaluation_sets, *inputs.targets]
    if not sets:
        raise UserError(
            "the configuration names nothing to evaluate: no evaluation.sets, no targets, and "
            "evaluation.holdout is 0; name some, for example evaluation.sets, or give --tasks"
        )
    shape = resolve_shape(config.model, inputs.tokenizer.vocab_size)
    engine = TrainingEngine(config, shape, layout, len(config.sources), None, weights)
    count = config.evaluation.sequences
    batches = even_micro_batches(sets, count, 0, config.train.micro_batch, layout)
    found = engine.evaluate(batches, [each.choices for each in sets])
    rows: list[dict[str, Any]] = []
    for number, (each, loss) in enumerate(zip(sets, found.losses, strict=True)):
        kind = "held-out" if number < len(inputs.evaluation_sets) else "target"
        row = {"name": each.name, "kind": kind, "loss": float(loss)}
        # The loss of multiple choice is of a question, which has no perplexity.
        if number in found.accuracies:
            row["accuracy"] = found.accuracies[number]
        else:
            row["perplexity"] = math.exp(min(float(loss), 700.0))
        rows.append(row)
    return {"sequences": count, "seq_length": config.train.seq_length, "sets": rows}, _table(rows)


def _last_column(row: dict[str, Any]) -> str:
    if "accuracy" in row:
        return f"{row['accuracy']:.1%} right"
    return f"{row['perplexity']:10.2f}"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    wide = max(4, *(len(row["name"]) for row in rows))
    lines = [f"{'set':<{wide}}  {'kind':<8}    loss  perplexity"]
    lines += [
        f"{row['name']:<{wide}}  {row['kind']:<8}  {row['loss']:6.4f}  {_last_column(row)}"
        for row in rows
    ]
    return "\n".join(lines)


def _tasks(
    config: Config, weights: RunWeights, layout: Layout, asked: Evaluation, manager: Any
) -> tuple[dict[str, Any], str]:
    tokenizer = weights.open_tokenizer()
    shape = resolve_shape(config.model, tokenizer.vocab_size)
    model = harness.TextModel(
        AnsweringModel(config, shape, layout, weights),
        tokenizer,
        batch=asked.batch,
        length=config.train.seq_length,
    )
    results = harness.run_tasks(
        manager,
        asked.tasks,
        model,
        shots=asked.shots,
        limit=asked.limit,
    )
    if results is None:
        return {}, ""
    keys = ("results", "groups", "n-shot", "n-samples", "versions", "higher_is_better")
    found = {key: results[key] for key in keys if key in results}
    return {"lm_eval": version("lm_eval")} | found, harness.result_table(results)


def _configuration(weights: RunWeights, overrides: Sequence[str]) -> Config:
    path = weights.directory.parent.parent / "config.yaml"
    config = load_config(path, ["parallel={}", *overrides])
    parallel = config.parallel
    if parallel.context > 1 or parallel.sequence or parallel.interleave > 1 or parallel.zero == 3:
        raise UserError(
            "an evaluation runs under tensor, pipeline and data parallelism; leave "
            "parallel.context, parallel.sequence, parallel.interleave and parallel.zero: 3 out"
        )
    processes = parallel_layout.world_size_from_environment()
    data = parallel_layout.data_parallel_size(parallel, processes)
    # Nothing is trained: the smallest global batch that the processes can share.
    train = config.train.model_copy(update={"global_batch": config.train.micro_batch * data})
    config = config.model_copy(update={"model": weights.model, "train": train})
    mistakes = problems(parallel, config, resolve_shape(weights.model, 1), processes, "train")
    if mistakes:
        raise UserError("\n".join(mistakes))
    return config


def _whole(weights: RunWeights, layout: Layout) -> None:
    """Raises: UserError, on every process alike, if the checkpoint's files are damaged."""
    damage = weights.damage() if layout.is_main else []
    found = torch.tensor([len(damage)], device=layout.device)
    if layout.broadcast_from_main(found).item():
        raise UserError(f"{weights.directory} is damaged: {'; '.join(damage)}")


def _default_output(weights: RunWeights, tasks: bool) -> Path:
    name = f"step_{weights.manifest.step}{'_tasks' if tasks else ''}.json"
    return weights.directory.parent.parent / "evaluations" / name
