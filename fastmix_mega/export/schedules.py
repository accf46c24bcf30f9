"""A plan of several phases in the trainers that know schedules, and as restarts of Megatron."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmix_mega.errors import UserError
from fastmix_mega.export.export import Exported
from fastmix_mega.export.megatron import write_arguments
from fastmix_mega.export.plan import Part, Plan
from fastmix_mega.export.pretraining import levanter_block
from fastmix_mega.export.text import to_yaml
from fastmix_mega.files import write_atomic
from fastmix_mega.mixture.file import MixtureFile, MixtureStage, mixture_path, read_mixture
from fastmix_mega.output_file import require_output_file

STAGED = "fastmix-stages"
"""`mixture` and `stages` of a configuration for `fastmix train`."""


@dataclass(frozen=True)
class StepSize:
    """Of the large run."""

    sequences: int
    """Of one training step."""
    length: int
    """Tokens of a sequence."""

    def first_step(self, tokens: int, multiple: int = 1) -> int:
        """The step, from 0, that is nearest to so many tokens."""
        return multiple * max(0, round(tokens / (self.sequences * self.length * multiple)))


@dataclass(frozen=True)
class Schedule:
    """What is written."""

    mixture: MixtureFile
    stages: list[tuple[MixtureStage, Plan]]
    """Every phase, and what it is made of."""
    step: StepSize
    notes: list[str]


def export_schedule(
    path: str | Path,
    to: str,
    output: str | Path,
    step: StepSize | None = None,
    paths: str | None = None,
) -> Exported:
    """Write a plan of several phases.

    Args:
        path: of the plan, or the run folder that holds it.
        to: a name in `SCHEDULES`.
        output: the file to write; Megatron gets one a phase, with the phase in its name.
        step: of the large run; only `fastmix-stages` does without.
        paths: a template with {name} or {prefix}.

    Raises:
        UserError: if the file is no plan, or the format cannot hold it.
    """
    output = require_output_file(output, [mixture_path(path)])
    mixture = read_mixture(mixture_path(path))
    if step is None and to != STAGED:
        raise UserError(
            f"{to} counts steps: give --global-batch (sequences of a step) and --seq-length of the "
            "large run"
        )
    notes = [f"Plan of {len(mixture.stages)} phases by fastmix-mega, from {path}, for {to}."]
    stages = [
        (stage, Plan(_of_stage(mixture, stage), paths, stage.tokens, (), notes))
        for stage in mixture.stages
    ]
    given = Schedule(mixture, stages, step or StepSize(1, 1), notes)
    _require_steps(given)
    files, lines = SCHEDULES[to](given, output)
    for place, text in files.items():
        write_atomic(place, text)
    return Exported(output, lines)


Writer = Callable[[Schedule, Path], tuple[dict[Path, str], list[str]]]
"""Files with their content, and what to tell."""


def _of_stage(mixture: MixtureFile, stage: MixtureStage) -> MixtureFile:
    sources = [
        source.model_copy(update={"weight": stage.weights[source.name]})
        for source in mixture.sources
    ]
    return mixture.model_copy(update={"sources": sources, "stages": []})


def _require_steps(given: Schedule) -> None:
    for stage, _ in given.stages:
        if given.step.first_step(stage.tokens) == 0:
            raise UserError(f"phase {stage.name}: {stage.tokens:,} tokens are not one step")


def _write_stages(given: Schedule, output: Path) -> tuple[dict[Path, str], list[str]]:
    first, *later = (stage for stage, _ in given.stages)
    content: dict[str, Any] = {
        "mixture": first.weights,
        "stages": [
            {"name": each.name, "from_tokens": each.from_tokens, "mixture": each.weights}
            for each in later
        ],
    }
    return {output: to_yaml(given.notes, content)}, [
        "use: fastmix train: put both keys into the large run's configuration"
    ]


def _write_levanter(given: Schedule, output: Path) -> tuple[dict[Path, str], list[str]]:
    """A stage must begin with a block of the mixture (MixtureDataset asserts it)."""
    blocks, weights = [], []
    components: dict[str, dict[str, str]] = {}
    for _, plan in given.stages:
        parts = plan.parts(None)
        names = [_name_in(parts, part) for part in parts]
        components |= {n: {"cache_dir": part.path} for n, part in zip(names, parts, strict=True)}
        weights.append({n: part.weight for n, part in zip(names, parts, strict=True)})
        blocks.append(levanter_block([part.weight for part in parts]))
    block = max(blocks)
    multiple = block // math.gcd(block, given.step.sequences)
    begins = [given.step.first_step(stage.from_tokens, multiple) for stage, _ in given.stages]
    if sorted(set(begins)) != begins:
        raise UserError(
            f"Levanter begins a stage with a block of {block} sequences, which is {multiple} steps "
            "here; a phase is shorter: use a larger --global-batch, or longer phases"
        )
    data = {
        "components": components,
        "train_weights": [list(each) for each in zip(begins, weights, strict=True)],
        "mixture_block_size": block,
    }
    content = {
        "data": data,
        "trainer": {"train_batch_size": given.step.sequences},
        "train_seq_len": given.step.length,
    }
    return {output: to_yaml(given.notes, content)}, [
        *_begin_lines(given, begins),
        "use: Levanter: add FILE to the configuration; cache_dir is where its caches are",
    ]


def _write_nanotron(given: Schedule, output: Path) -> tuple[dict[Path, str], list[str]]:
    """`data_stages`, whose steps count from 1."""
    begins = [given.step.first_step(stage.from_tokens) for stage, _ in given.stages]
    listed = []
    for (stage, plan), first in zip(given.stages, begins, strict=True):
        parts = plan.parts(None)
        dataset = {
            "dataset_folder": [part.path for part in parts],
            "dataset_weights": [part.weight for part in parts],
        }
        listed.append(
            {
                "name": stage.name,
                "start_training_step": first + 1,
                "data": {"dataset": dataset, "num_loading_workers": 1, "seed": 42},
            }
        )
    return {output: to_yaml(given.notes, {"data_stages": listed})}, [
        *_begin_lines(given, begins),
        "use: nanotron: put data_stages into the configuration",
    ]


def _write_megatron(given: Schedule, output: Path) -> tuple[dict[Path, str], list[str]]:
    """A blend a phase, and the commands of the restarts.

    `--phase-transition-iterations` (Megatron-LM, main of 2026) ends a run at these iterations, and
    counts the next one's samples from 0: every phase is a data set of its own.
    """
    step = given.step
    ends = [step.first_step(stage.from_tokens + stage.tokens) for stage, _ in given.stages]
    transitions = " ".join(str(end) for end in ends[:-1])
    files, lines = {}, [*_begin_lines(given, [0, *ends[:-1]]), "start Megatron once a phase:"]
    for stage, plan in given.stages:
        place = output.with_name(f"{output.stem}.{stage.name}{output.suffix}")
        files[require_output_file(place)] = write_arguments(plan)
        lines.append(
            f"  {stage.name}: --data-args-path {place} --train-iters {ends[-1]} "
            f"--phase-transition-iterations {transitions} --global-batch-size {step.sequences} "
            f"--seq-length {step.length} --save CHECKPOINTS --load CHECKPOINTS"
        )
    lines.append(
        "each phase reads its blend from the start: what a phase before has read of a source is "
        "read again first; another --seed per phase gives another order"
    )
    return files | {output: "\n".join([*given.notes, *lines]) + "\n"}, lines


def _begin_lines(given: Schedule, begins: Sequence[int]) -> list[str]:
    return [
        f"{stage.name}: from step {first:,} ({first * given.step.sequences * given.step.length:,} "
        f"tokens; {stage.from_tokens:,} were asked for)"
        for (stage, _), first in zip(given.stages, begins, strict=True)
    ]


def _name_in(parts: Sequence[Part], part: Part) -> str:
    """The source's name, or the path of one of its several files."""
    alone = [each.source for each in parts].count(part.source) == 1
    return part.source if alone else part.path


SCHEDULES: dict[str, Writer] = {
    STAGED: _write_stages,
    "levanter": _write_levanter,
    "nanotron": _write_nanotron,
    "megatron": _write_megatron,
}
"""Formats that hold a plan of several phases."""
