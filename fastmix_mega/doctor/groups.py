"""Every process group of a layout: are its collectives' values right, and how fast is it?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from fastmix_mega.parallel.layout import Layout, Ranks

GROUPS = ("world", "data", "tensor", "pipeline", "context", "weights", "replica")
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int64)
"""Those that a run sums up: gradients, activations, sums of scores, counts."""
MEGABYTES = {"cuda": 256, "cpu": 4}
REPEATS = 3


def measure(layout: Layout) -> dict[str, Any]:
    """Of every group: wrong values, GB/s, the network interface. Collective."""
    found: dict[str, Any] = {}
    for name in GROUPS:
        ranks: Ranks = getattr(layout, name)
        # A group of one sends nothing.
        if ranks.size > 1:
            found[name] = {"size": ranks.size, "wrong": _wrong(ranks, layout.device)}
            found[name]["all_reduce"] = _bandwidth(ranks, layout.device)
    if layout.pipeline.size > 1:
        found["pipeline"]["point_to_point"] = _point_to_point(layout)
    return found


def _wrong(ranks: Ranks, device: torch.device) -> list[str]:
    """What does not give the right value."""
    wrong = []
    expected = sum(range(1, ranks.size + 1))
    for dtype in DTYPES:
        tensor = torch.full((8,), ranks.rank + 1, dtype=dtype, device=device)
        ranks.sum(tensor)
        if not bool((tensor == torch.tensor(expected, device=device).to(dtype)).all()):
            wrong.append(f"all-reduce of {dtype}")
    gathered: list[Any] = [None] * ranks.size
    dist.all_gather_object(gathered, {"rank": ranks.rank}, group=ranks.group)
    if [each["rank"] for each in gathered] != list(range(ranks.size)):
        wrong.append("gather of objects")
    return wrong


def _bandwidth(ranks: Ranks, device: torch.device) -> float:
    """GB/s of the bus: what a ring moves per process and second."""
    tensor = torch.ones(MEGABYTES[device.type] * 10**6 // 4, device=device)
    seconds = _seconds(lambda: ranks.sum(tensor), device)
    moved = 2 * (ranks.size - 1) / ranks.size * tensor.numel() * 4
    return round(moved / seconds / 1e9, 3)


def _point_to_point(layout: Layout) -> float:
    """GB/s from each stage to the next one, in a ring."""
    stages, device = layout.pipeline, layout.device
    ranks = dist.get_process_group_ranks(stages.group)
    sent = torch.full((MEGABYTES[device.type] * 10**6 // 4,), float(stages.rank), device=device)
    received = torch.empty_like(sent)
    following = ranks[(stages.rank + 1) % stages.size]
    before = ranks[(stages.rank - 1) % stages.size]

    def pass_on() -> None:
        messages = [
            dist.P2POp(dist.isend, sent, following, stages.group),
            dist.P2POp(dist.irecv, received, before, stages.group),
        ]
        for request in dist.batch_isend_irecv(messages):
            request.wait()

    seconds = _seconds(pass_on, device)
    if float(received[0]) != (stages.rank - 1) % stages.size:
        raise RuntimeError("a message between pipeline stages came from another stage")
    return round(sent.numel() * 4 / seconds / 1e9, 3)


def _seconds(action: Callable[[], Any], device: torch.device) -> float:
    """The fastest of a few."""
    times = []
    for _ in range(1 + REPEATS):
        _finish(device)
        begun = time.perf_counter()
        action()
        _finish(device)
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
