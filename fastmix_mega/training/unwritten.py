"""What to tell of a run that has made its steps, when the disk does not take what it has found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def unwritten(lacking: Sequence[str], done: int, saved: int, run_dir: str) -> str:
    """What is missing, what is kept, and how to go on.

    Args:
        lacking: what could not be written, with the reasons.
        done: steps that the run has made.
        saved: those of its newest checkpoint; 0 if there is none.
        run_dir: its folder.
    """
    text = f"all {done} steps are made, but {' and '.join(lacking)} could not be written. "
    again = "make room on the disk and start the same command again: it"
    if saved == 0:
        return f"{text}No checkpoint is kept; {again} begins anew"
    kept = f"Kept: {Path(run_dir) / 'checkpoints' / f'step_{saved}'}; {again}"
    if saved == done:
        return f"{text}{kept} makes no step anew, and writes what is missing"
    return f"{text}{kept} makes the last {done - saved} steps anew, and writes what is missing"
