"""Checkpoints: DeepSpeed's, plus what is ours, complete or invisible.

Every process writes into `step_N.partial`; when all are done the folder is renamed to `step_N`,
and only whole names are ever read. A resumed run continues bit for bit at the same layout.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastmix_mega.files import fsync_directory
from fastmix_mega.parallel.layout import Layout


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
        run_dir: the run folder.
        keep: how many to keep.
        layout: this process's place.
    """

    def __init__(self, run_dir: str, keep: int, layout: Layout) -> None:
        self.directory = Path(run_dir) / "checkpoints"
        self.keep = keep
        self.layout = layout

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, the oldest first."""
        found = (re.fullmatch(r"step_(\d+)", path.name) for path in self.directory.glob("step_*"))
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, deepspeed_engine: Any, state: dict[str, Any]) -> None:
        """Write the checkpoint of `step`. Collective.

        Args:
            step: training steps done.
            deepspeed_engine: weights and optimizer.
            state: this process's own part: tensors, arrays, numbers.
        """
        final = self.directory / f"step_{step}"
        partial = self.directory / f"step_{step}.partial"
        if self.layout.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self._barrier()
        deepspeed_engine.save_checkpoint(
            str(self.directory), tag=partial.name, save_latest=False, client_state={}
        )
        torch.save(state, partial / f"fastmix_rank{self.layout.rank}.pt")
        self._barrier()
        if self.layout.is_main:
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            fsync_directory(self.directory)
            for old in self.steps()[: -self.keep]:
                shutil.rmtree(self.directory / f"step_{old}")
        self._barrier()

    def load_latest(self, deepspeed_engine: Any) -> tuple[int, dict[str, Any]] | None:
        """Restore the newest checkpoint, if there is one. Collective.

        Returns:
            Its step and this process's own part.
        """
        steps = self.steps()
        if not steps:
            return None
        tag = f"step_{steps[-1]}"
        deepspeed_engine.load_checkpoint(str(self.directory), tag=tag)
        # Our own file, with numpy arrays inside: not for torch's restricted unpickler.
        path = self.directory / tag / f"fastmix_rank{self.layout.rank}.pt"
        state = torch.load(path, map_location=self.layout.device, weights_only=False)
        return steps[-1], state

    def _barrier(self) -> None:
        if self.layout.world_size > 1:
            dist.barrier()
