"""Which callbacks watch a run, and what they need of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fastmix_mega.config.schema import Config
from fastmix_mega.parallel.layout import Layout
from fastmix_mega.training.callbacks import (
    Callback,
    HangWatch,
    MixtureWatch,
    PlaceMark,
    SkippedSteps,
    SpikeWatch,
    StragglerWatch,
)
from fastmix_mega.training.clock import StepClock
from fastmix_mega.training.guards.mixture import MixtureGuard
from fastmix_mega.training.guards.nonfinite import NonFiniteGuard
from fastmix_mega.training.guards.spikes import LossSpikes
from fastmix_mega.training.guards.watchdog import Member, Watchdog
from fastmix_mega.training.place import PlaceFile


def watchdog_of(config: Config, layout: Layout, chunks: Sequence[nn.Module]) -> Watchdog:
    """It hears of every forward pass.

    Args:
        config: the run.
        layout: this process's place.
        chunks: this process's parts of the model.
    """
    member = Member(layout.rank, layout.world_size, lockstep=layout.pipeline.size == 1)
    watchdog = Watchdog(member, 60 * config.guards.hang_minutes, config.run_dir)
    for chunk in chunks:
        chunk.register_forward_pre_hook(watchdog.beat)
    return watchdog


def callbacks_of(
    config: Config, layout: Layout, watchdog: Watchdog, clock: StepClock
) -> list[Callback]:
    """In the order in which they are called. Collective."""
    guards, names = config.guards, config.source_names
    return [
        PlaceMark(PlaceFile(config.run_dir)),
        HangWatch(watchdog),
        SkippedSteps(NonFiniteGuard(guards.max_skipped, names, layout)),
        StragglerWatch(clock, layout),
        SpikeWatch(LossSpikes(guards.spike, names)),
        MixtureWatch(MixtureGuard(guards.min_effective_sources, guards.max_doubtful, names)),
    ]
