"""What `fastmix plan` prints: the configured layout, what fits, and which one to take."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from fastmix_mega.config.schema import Config
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.model.presets import ModelShape, resolve_shape
from fastmix_mega.planning.layouts import Machine, Plan, plan_layout, plan_layouts
from fastmix_mega.planning.memory import Memory
from fastmix_mega.planning.rules import as_yaml, problems
from fastmix_mega.quantities import in_bytes, in_seconds, with_unit

SHOWN = 8
"""Layouts in the table."""
WORTH_SPLITTING = 50e6
"""Parameters below which a model that fits on one GPU gains nothing by being split."""


def planned_shape(config: Config) -> ModelShape:
    """The model's sizes; a plan on paper needs no tokenizer where `model.vocab_size` is given."""
    if config.model.vocab_size is not None and not Path(config.tokenizer).exists():
        return resolve_shape(config.model, config.model.vocab_size)
    return resolve_shape(config.model, Tokenizer(config.tokenizer).vocab_size)


def best_plan(
    config: Config, shape: ModelShape, gpus: int, mode: str, machine: Machine
) -> tuple[Config, list[Plan]]:
    """The layouts that fit, best first; recomputation is turned on only where nothing fits.

    Returns:
        The configuration with the recomputation that was needed, and the plans; none if nothing
        fits.
    """
    for recompute in (config.train.recompute, "full"):
        train = config.train.model_copy(update={"recompute": recompute})
        tried = config.model_copy(update={"train": train})
        plans = plan_layouts(tried, shape, gpus, mode, machine)
        fitting = [plan for plan in plans if plan.memory.total <= machine.usable]
        if fitting:
            return tried, fitting
    return config, []


def describe_plans(config: Config, gpus: int, mode: str, machine: Machine) -> str:
    """The text of `fastmix plan`.

    Raises:
        UserError: if no layout can run on so many GPUs, or none fits.
    """
    shape = planned_shape(config)
    train = config.train
    lines = [
        f"model: {with_unit(shape.parameters)} parameters, {config.precision}; {mode} on {gpus} "
        f"GPUs of {machine.gpu_memory / 1e9:.0f} GB ({machine.usable / 1e9:.0f} GB usable), "
        f"global batch {train.global_batch} x {train.seq_length} tokens, micro-batch "
        f"{train.micro_batch}",
    ]
    mistakes = problems(config.parallel, config, shape, gpus, mode)
    if mistakes:
        lines += ["", f"the configured layout cannot run on {gpus} GPUs:"]
        lines += [f"  {mistake}" for mistake in mistakes]
    else:
        plan = plan_layout(config, shape, config.parallel, gpus, mode, machine)
        verdict = "fits" if plan.memory.total <= machine.usable else "DOES NOT FIT"
        lines += ["", f"as configured: {as_yaml(config.parallel)}: {verdict}"]
        lines += _parts(plan.memory)
    chosen, fitting = best_plan(config, shape, gpus, mode, machine)
    if not fitting:
        raise UserError("\n".join([*lines, _nothing_fits(config, shape, gpus, mode, machine)]))
    lines += ["", *_table(fitting[:SHOWN], len(fitting), mode)]
    best, title = fitting[0], "recommended"
    if shape.parameters < WORTH_SPLITTING and _model_parallel(best) > 1:
        whole = [plan for plan in fitting if _model_parallel(plan) == 1]
        most = config.train.global_batch // config.train.micro_batch
        best = whole[0] if whole else best
        title = "recommended" if whole else f"the fastest on all {gpus}"
        lines.append(
            f"a model of {with_unit(shape.parameters)} parameters is not worth splitting"
            + ("" if whole else f"; take at most {most} GPUs, or a larger train.global_batch")
        )
    lines += ["", f"{title}: {as_yaml(best.parallel)}"]
    if chosen.train.recompute != config.train.recompute:
        lines.append("with train.recompute=full: nothing fits without")
    lines += _parts(best.memory)
    lines += _traffic(best, config, mode)
    return "\n".join(lines)


def _model_parallel(plan: Plan) -> int:
    """GPUs that share one copy of the model."""
    return plan.parallel.tensor * plan.parallel.pipeline * plan.parallel.context


def _parts(memory: Memory) -> list[str]:
    return [f"  per GPU at the peak: {in_bytes(memory.total)} = {_listed(memory)}"]


def _listed(parts: object) -> str:
    """The parts that are not 0, with their sizes."""
    sizes = {field.name: getattr(parts, field.name) for field in fields(parts)}  # type: ignore[arg-type]
    return " + ".join(f"{name} {in_bytes(size)}" for name, size in sizes.items() if size > 0)


def _table(plans: list[Plan], count: int, mode: str) -> list[str]:
    title = f"{count} layouts fit; the fastest by the estimate (for ranking only):"
    search = mode == "search"
    lines = [title, f"  {'memory':>8} {'a step':>8}{'  outer' if search else ''}  layout"]
    for plan in plans:
        outer = f" {plan.outer_share:6.1%}" if search else ""
        lines.append(
            f"  {in_bytes(plan.memory.total):>8} {in_seconds(plan.step_seconds):>8}{outer}  "
            f"{as_yaml(plan.parallel)}"
        )
    return lines


def _traffic(plan: Plan, config: Config, mode: str) -> list[str]:
    def line(name: str, traffic: object, total: float) -> str:
        listed = _listed(traffic)
        sent = f"  sent per GPU and {name}: {in_bytes(total)}"
        return f"{sent} = {listed}" if listed else sent

    lines = [line("training step", plan.step, plan.step.total)]
    if mode == "search":
        every = config.search.every
        lines.append(
            line("outer step", plan.outer, plan.outer.total)
            + f" (every {every} steps: {in_bytes(plan.outer.total / every)} a step)"
        )
    return lines


def _nothing_fits(config: Config, shape: ModelShape, gpus: int, mode: str, machine: Machine) -> str:
    plans = plan_layouts(config, shape, gpus, mode, machine)
    if not plans:
        return (
            f"no layout can run on {gpus} GPUs: train.global_batch ({config.train.global_batch}) "
            "and the model's sizes leave none; change the number of GPUs or the global batch"
        )
    least = min(plans, key=lambda plan: plan.memory.total)
    return (
        f"nothing fits in {machine.usable / 1e9:.0f} GB, with full recomputation neither; the "
        f"least is {in_bytes(least.memory.total)} with {as_yaml(least.parallel)}; use more "
        f"GPUs or a smaller train.micro_batch ({config.train.micro_batch})"
    )
