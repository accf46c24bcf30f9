"""What `fastmix check` says of a run folder that already holds a run."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from fastmix_mega.checkpoint.manifest import (
    DamagedCheckpoint,
    read_manifest,
    require_convertible,
)
from fastmix_mega.config.mistakes import known_paths
from fastmix_mega.config.parse import read_settings, validated
from fastmix_mega.config.schema import Config
from fastmix_mega.errors import UserError
from fastmix_mega.reading import read_limited
from fastmix_mega.training.engine.learning_rate import learning_rate
from fastmix_mega.training.identity import Difference

LONGEST_NAME = 100
"""Bytes of the file that names the newest checkpoint."""
SHOWN = 4
"""Differences that are reported one by one."""
ODD_NAMES = ("data:",)
"""What names of differences begin with that are no keys of a configuration."""


def unknown_names(
    schema: type[Config], allowed: Collection[str], changed: Sequence[Difference]
) -> Iterator[str]:
    """Misspelt `--allow-changed NAME`.

    A name that is right and does not differ (any more) is fine: the same command can be repeated.
    """
    keys = known_paths(schema)
    for name in allowed:
        known = any(fnmatchcase(name, key) for key in keys)
        if known or name.startswith(ODD_NAMES) or name in {each.name for each in changed}:
            continue
        differing = [difference.name for difference in changed if difference.can_be_allowed]
        close = difflib.get_close_matches(name, [*differing, *keys], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        yield f"--allow-changed {name}: there is no such key{hint}"


def clash(directory: Path, changed: Sequence[Difference]) -> str:
    """One message for all differences, the first ones in words."""
    lines = [f"run_dir: {directory} holds another run: {changed[0]}"]
    lines += [f"    {difference}" for difference in changed[1:SHOWN]]
    if len(changed) > SHOWN:
        names = ", ".join(difference.name for difference in changed[SHOWN : 3 * SHOWN])
        lines.append(f"    and {len(changed) - SHOWN} more differences: {names}")
    return "\n".join([*lines, "    Name another run_dir, or move that run away"])


def changed_schedule(config: Config, warnings: list[str]) -> Iterator[str]:
    """What another number of steps, or another schedule, does to a run that goes on.

    Args:
        config: of the run as it is to go on.
        warnings: is given the learning rates on both sides, where they differ.

    Yields:
        Mistakes: fewer steps than were made.
    """
    # Only here: it imports the libraries of training.
    from fastmix_mega.checkpoint.store import checkpoint_steps

    directory = Path(config.run_dir)
    made = max(checkpoint_steps(directory / "checkpoints"), default=0)
    if made == 0:
        return
    try:
        path = directory / "config.yaml"
        before = validated(read_settings(path), type(config), str(path)).train
    except UserError:
        return  # Reported with the folder's differences.
    now = config.train
    if now.steps < made:
        yield (
            f"train.steps: {now.steps:,}, but the run in {directory} has made {made:,} steps; a "
            "shorter run must be made anew, in another run_dir"
        )
        return
    old = learning_rate(before.schedule, made, before.steps)
    new = learning_rate(now.schedule, made, now.steps)
    if made < before.steps and abs(new - old) > 1e-9 * max(new, old):
        warnings.append(
            f"the learning rate goes on at {new:.3g} after step {made:,}, where the run's own "
            f"schedule had {old:.3g} (train.steps {before.steps:,} there, {now.steps:,} here)"
        )
    elif made >= before.steps and now.steps > made:
        last = learning_rate(before.schedule, made - 1, before.steps)
        warnings.append(
            f"the run was finished: its learning rate had come down to {last:.3g} at step "
            f"{made:,} and goes on at {new:.3g}, since the schedule is now that of "
            f"{now.steps:,} steps"
        )


def changed_layout(config: Config, data: int, facts: list[str]) -> Iterator[str]:
    """Whether the newest checkpoint can go on at this layout, if it was saved at another one.

    Args:
        config: of the run as it is to go on.
        data: processes that hold the same part of the model.
        facts: is given the change.
    """
    checkpoints = Path(config.run_dir) / "checkpoints"
    try:
        name = read_limited(checkpoints / "latest", LONGEST_NAME).decode().strip()
        newest = checkpoints / Path(name).name
        before = read_manifest(newest).layout
    except (OSError, ValueError, DamagedCheckpoint):
        return  # None, or the start tells.
    now = config.parallel.sizes(data)
    if before == now:
        return
    try:
        require_convertible(before, now)
    except (UserError, KeyError) as error:
        yield f"run_dir: {newest.name}: {error}"
        return
    facts.append(f"goes on from {newest.name} at another layout: {before} there, {now} here")
