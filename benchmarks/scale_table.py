"""The tables of docs/scale.md: what `fastmix plan` recommends on 8 to 1,024 GPUs.

python -m benchmarks.scale_table [--gpu-memory 80]
"""

from __future__ import annotations

import argparse

from fastmix_mega.configuration import load_config
from fastmix_mega.methods.registry import method_of
from fastmix_mega.planning.describe import best_plan, planned_shape
from fastmix_mega.planning.layouts import Machine
from fastmix_mega.planning.rules import as_yaml
from fastmix_mega.training.run import Verb

CONFIGS = ("configs/large_1b.yaml", "configs/large_7b.yaml", "configs/large_70b.yaml")
GPUS = (8, 32, 64, 128, 512, 1024)
SEARCH = ["search.every=8", "search.target_batch=128"]


def table(path: str, mode: Verb, memory: float) -> list[str]:
    """Markdown lines for one model."""
    config = method_of(load_config(path, SEARCH), mode).config
    shape = planned_shape(config)
    search = mode == "search"
    lines = [
        f"**{shape.parameters / 1e9:.1f}B, {mode}**, global batch {config.train.global_batch} x "
        f"{config.train.seq_length} tokens, micro-batch {config.train.micro_batch}:",
        "",
        "| GPUs | layout | GB: parameters, gradients, optimizer, v, activations, logits, buffers "
        "| GB in all | GB sent a step | GB sent an outer step | outer steps' time |",
        "|---:|---|---|---:|---:|---:|---:|",
    ]
    for gpus in GPUS:
        tried, plans = best_plan(config, shape, gpus, mode, Machine(memory))
        if not plans:
            lines.append(f"| {gpus} | nothing fits | | | | | |")
            continue
        best = plans[0]
        layout = as_yaml(best.parallel).removeprefix("parallel: ").strip("{}")
        if tried.train.recompute != "none":
            layout += f", recompute: {tried.train.recompute}"
        parts = ", ".join(f"{value / 1e9:.1f}" for value in vars(best.memory).values())
        outer = f"{best.outer.total / 1e9:.2f} | {best.outer_share:.1%}" if search else "- | -"
        lines.append(
            f"| {gpus} | {layout} | {parts} | {best.memory.total / 1e9:.1f} | "
            f"{best.step.total / 1e9:.1f} | {outer} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description="The tables of docs/scale.md")
    parser.add_argument("--gpu-memory", type=float, default=80.0, help="GB of one GPU")
    options = parser.parse_args()
    modes: tuple[Verb, ...] = ("search", "train")
    for path in CONFIGS:
        for mode in modes:
            print("\n".join(table(path, mode, options.gpu_memory * 1e9)))


if __name__ == "__main__":
    main()
