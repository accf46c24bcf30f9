"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from fastmix_mega.config.sections import ScheduleSection


def learning_rate(schedule: ScheduleSection, step: int, steps: int) -> float:
    """The rate of training step `step` (from 0) in a run of `steps`."""
    if step < schedule.warmup:
        return schedule.peak * (step + 1) / schedule.warmup
    if schedule.kind == "constant":
        return schedule.peak
    if schedule.kind == "cosine":
        progress = (step - schedule.warmup) / max(1, steps - 1 - schedule.warmup)
        share = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    else:
        decay_steps = max(1, round(schedule.decay * steps))
        share = min(1.0, (steps - 1 - step) / decay_steps)
    return schedule.peak * (schedule.final + (1 - schedule.final) * share)
