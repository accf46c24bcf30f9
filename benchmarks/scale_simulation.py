"""Goal 8: time per step and per outer step of 1B and 7B proxies on 8 to 1,024 GPUs, simulated.

    python -m benchmarks.scale_simulation [--every 8] [--json]

No GPU was at hand. Arithmetic is counted in operations at an assumed efficiency, communication in
bytes over assumed links (`fastmix_mega/planning/layouts.py`), and on top of those this simulates
what a count leaves out: processes of unequal speed, the slowest of which everyone waits for, and
the latency of the small collectives (score sums, mixture, agreement). Prints where an outer step
costs more than 3% of the time, and the `search.every` that brings it back there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.timing import Row, parser, tell
from fastmix_mega.configuration import load_config
from fastmix_mega.methods.registry import method_of
from fastmix_mega.planning.describe import best_plan, planned_shape
from fastmix_mega.planning.layouts import Machine
from fastmix_mega.planning.rules import as_yaml

CONFIGS = {"1B": "configs/large_1b.yaml", "7B": "configs/large_7b.yaml"}
GPUS = (8, 32, 128, 512, 1024)
LINKS = {"400 Gb/s": 40e9, "100 Gb/s": 10e9}
SLOWNESS = 0.02
"""Standard deviation of a process's time for a step, as a share of it."""
HOP_SECONDS = 20e-6
"""Latency of one hop of a small collective; there are log2 of the processes."""
LIMIT = 0.03
OUTER_COLLECTIVES = 3
"""Score sums, target losses, and the mixture's broadcast."""


@dataclass(frozen=True)
class Simulated:
    layout: str
    step_ms: float
    outer_ms: float
    share: float
    """Of the time, in outer steps."""
    every: int
    """The smallest `search.every` at which outer steps take no more than LIMIT."""


def simulate(path: str, gpus: int, between_nodes: float, every: int) -> Simulated | None:
    """None where nothing fits."""
    settings = [f"search.every={every}", "search.target_batch=128"]
    config = method_of(load_config(path, settings), "search").config
    shape = planned_shape(config)
    machine = replace(Machine(80e9), between_nodes=between_nodes)
    _, plans = best_plan(config, shape, gpus, "search", machine)
    if not plans:
        return None
    best = plans[0]
    step = best.step_seconds
    outer = best.outer_share * every * step / (1 - best.outer_share)
    random = np.random.default_rng(0)
    slowest = 1 + SLOWNESS * random.standard_normal((2000, gpus)).max(1)
    hops = math.log2(gpus) * HOP_SECONDS
    steps = float((step * slowest[:1000]).mean()) + hops
    outers = float((outer * slowest[1000:]).mean()) + OUTER_COLLECTIVES * hops
    layout = as_yaml(best.parallel).removeprefix("parallel: ").strip("{}")
    needed = math.ceil(outers * (1 - LIMIT) / (LIMIT * steps))
    share = outers / (outers + every * steps)
    return Simulated(
        layout,
        step_ms=steps * 1e3,
        outer_ms=outers * 1e3,
        share=share,
        every=max(1, needed),
    )


def measure(every: int) -> tuple[list[str], list[Row]]:
    """Markdown of the table, and the rows."""
    lines = [
        "| proxy | links between nodes | GPUs | layout | step, ms | outer step, ms | outer steps' "
        f"share at every {every} | at most {LIMIT:.0%} from `search.every` |",
        "|---|---|---:|---|---:|---:|---:|---:|",
    ]
    rows = []
    for name, path in CONFIGS.items():
        over = []
        for link, speed in LINKS.items():
            for gpus in GPUS:
                found = simulate(path, gpus, speed, every)
                if found is None:
                    lines.append(f"| {name} | {link} | {gpus} | nothing fits | | | | |")
                    continue
                lines.append(
                    f"| {name} | {link} | {gpus} | {found.layout} | {found.step_ms:.0f} | "
                    f"{found.outer_ms:.1f} | {found.share:.1%} | {found.every} |"
                )
                if found.share > LIMIT:
                    over.append(f"{gpus} GPUs at {link} ({found.share:.1%}; every {found.every})")
        text = "; ".join(over) if over else "nowhere"
        rows.append(Row(8, f"{name}: outer steps above {LIMIT:.0%}, every {every}", "", text))
    return lines, rows


def main() -> None:
    made = parser(__doc__, 60.0)
    made.add_argument("--every", type=int, default=8)
    options = made.parse_args()
    lines, rows = measure(options.every)
    if not options.json:
        print("\n".join(lines))
    tell(rows, options.json)


if __name__ == "__main__":
    main()
