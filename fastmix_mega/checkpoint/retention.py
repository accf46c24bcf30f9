"""Which checkpoints stay on disk: the last few, milestones, and the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def to_remove(
    steps: Sequence[int], keep: int, milestone: int, losses: Mapping[int, float], best: bool
) -> list[int]:
    """The checkpoints that may go.

    Args:
        steps: of all complete checkpoints.
        keep: how many of the newest stay.
        milestone: every checkpoint whose step is a multiple of this stays; 0 for none.
        losses: held-out loss of the steps where it is known.
        best: whether the one with the lowest known loss stays.
    """
    ordered = sorted(steps)
    stay = set(ordered[-keep:])
    if milestone:
        stay |= {step for step in ordered if step % milestone == 0}
    known = [step for step in ordered if step in losses]
    if best and known:
        stay.add(min(known, key=lambda step: (losses[step], step)))
    return [step for step in ordered if step not in stay]
