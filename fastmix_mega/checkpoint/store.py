"""The checkpoints of a run folder: written whole or not at all, verified before they are used.

Every process writes into `step_N.partial`. When all have written, the manifest with every file's
checksum is added, the folder is renamed to `step_N`, and `latest` moves last. A save that fails on
any rank (a full disk) is given up on all of them: the run and the older checkpoints live on.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from fastmix_mega.checkpoint import relayout
from fastmix_mega.checkpoint.io import collect_from, load_tensors, write_tensors
from fastmix_mega.checkpoint.manifest import (
    CheckpointManifest,
    DamagedCheckpoint,
    FileRecord,
    problems,
    read_manifest,
    require_convertible,
)
from fastmix_mega.checkpoint.retention import to_remove
from fastmix_mega.config.sections import CheckpointSection
from fastmix_mega.errors import UserError
from fastmix_mega.files import fsync_directory, write_atomic
from fastmix_mega.model.gpt import head_of, named_parts
from fastmix_mega.parallel.layout import Layout

HEAD = "head"
"""The name of a direction that is measured in closed form (`engine/head_meter.py`)."""
Value = TypeVar("Value")


def checkpoint_steps(directory: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, the oldest first."""
    found = (re.fullmatch(r"step_(\d+)", path.name) for path in directory.glob("step_*"))
    return sorted(int(match[1]) for match in found if match)


class Checkpoints:
    """The checkpoints of one run folder; every method is collective.

    Args:
        run_dir: the run folder.
        section: what to keep.
        layout: this process's place.
        deepspeed_engine: weights and optimizer.
        tied: whether the embedding is the head, which pipeline stages may hold twice.
        say: tells the user something; called on rank 0 only.
    """

    def __init__(
        self,
        run_dir: str,
        section: CheckpointSection,
        layout: Layout,
        deepspeed_engine: Any,
        tied: bool = False,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
    ) -> None:
        self.directory = Path(run_dir) / "checkpoints"
        self.section = section
        self.layout = layout
        self.say = say
        self.failed_saves = 0
        """In a row."""
        self.came_from: dict[str, int] | None = None
        """The layout of the checkpoint that was loaded, if it was another one."""
        self._deepspeed = deepspeed_engine
        self._collected = collect_from(deepspeed_engine)
        self._tied = tied
        self._losses: dict[int, float] = {}

    def save(self, step: int, state: dict[str, Any], loss: float | None = None) -> bool:
        """Write the checkpoint of `step`.

        Args:
            step: training steps done.
            state: this process's own part: tensors, arrays, numbers.
            loss: held-out loss at this step where it is known, for `checkpoint.keep_best`.

        Returns:
            Whether it is on disk; False is reported to the user and counted.
        """
        final = self.directory / f"step_{step}"
        partial = self.directory / f"step_{step}.partial"
        failures = self._attempt_on_main(lambda: _fresh_folder(partial))
        if not failures:
            self._deepspeed.save_checkpoint(
                str(self.directory), tag=partial.name, save_latest=False, client_state={}
            )
            pending = [*self._collected.pending, (partial / self._own_file(), state)]
            self._collected.pending = []
            records: dict[str, FileRecord] = {}
            failures = self._attempt(lambda: records.update(_write_all(pending, partial)))
        if not failures:
            failures = self._seal(step, partial, final, records)
        if failures:
            self.failed_saves += 1
            if self.layout.is_main:
                shutil.rmtree(partial, ignore_errors=True)
                self.say(
                    f"warning: the checkpoint of step {step} could not be written "
                    f"({'; '.join(failures)}); older checkpoints are untouched"
                )
            self._barrier()
            return False
        self.failed_saves = 0
        if self.layout.is_main:
            if loss is not None:
                self._losses[step] = loss
            self._remove_old()
        self._barrier()
        return True

    def load_latest(self) -> tuple[int, dict[str, Any]] | None:
        """Restore the newest checkpoint that is whole.

        Returns:
            Its step and this process's own part; None if there is no checkpoint at all.

        Raises:
            UserError: if there are checkpoints and none can be used.
        """
        steps = self._from_main(checkpoint_steps(self.directory))
        for step in reversed(steps):
            directory = self.directory / f"step_{step}"
            try:
                manifest = self._verify(directory)
            except DamagedCheckpoint as damage:
                if self.layout.is_main:
                    self.say(
                        f"warning: the checkpoint of step {step} is damaged ({damage}); "
                        "trying the one before"
                    )
                continue
            if manifest.step != step:
                raise UserError(f"{directory} was saved after step {manifest.step}, not {step}")
            if manifest.layout == self.layout.sizes:
                self._deepspeed.load_checkpoint(str(self.directory), tag=directory.name)
                state = load_tensors(directory / self._own_file(), self.layout.device)
            else:
                state = self._load_at_other_layout(directory, manifest)
            if self.layout.is_main:
                self._losses = dict(state.get("held_out", {}))
            return step, state
        if steps:
            raise UserError(
                f"none of the checkpoints in {self.directory} can be used (see above): restore "
                "one, or move the run folder away to start again"
            )
        return None

    def _load_at_other_layout(
        self, directory: Path, manifest: CheckpointManifest
    ) -> dict[str, Any]:
        require_convertible(manifest.layout, self.layout.sizes)
        self.came_from = manifest.layout
        if self.layout.is_main:
            self.say(f"{directory.name} is of the layout {manifest.layout}: converting it")
            relayout.convert(directory, self._tied)
        self._barrier()
        relayout.load_universal(self._deepspeed, directory)
        # Left in the files until they are read: together they are as large as all ranks' states.
        states = [
            load_tensors(directory / f"fastmix_rank{rank}.pt", "cpu", mmap=True)
            for rank in range(manifest.world_size)
        ]
        whole = relayout.merge_states(states, manifest.layout)
        return relayout.split_state(whole, self.layout, _measured_names(self._deepspeed.module))

    def held_out(self) -> dict[int, float]:
        """Held-out loss by step of the checkpoints so far (rank 0)."""
        return dict(self._losses)

    def _own_file(self) -> str:
        return f"fastmix_rank{self.layout.rank}.pt"

    def _seal(
        self, step: int, partial: Path, final: Path, records: dict[str, FileRecord]
    ) -> list[str]:
        """Manifest, rename, `latest`; returns failures.

        Args:
            step: of the checkpoint.
            partial: where every process has written.
            final: its name from now on.
            records: of the files that this process wrote.
        """
        everyone = self._gather(records)
        merged = {name: record for part in everyone for name, record in part.items()}
        assert len(merged) == sum(len(part) for part in everyone), "two processes wrote one file"
        manifest = CheckpointManifest(
            step=step,
            world_size=self.layout.world_size,
            layout=self.layout.sizes,
            versions={name: version(name) for name in ("fastmix-mega", "torch", "deepspeed")},
            files=dict(sorted(merged.items())),
        )

        def publish() -> None:
            require_whole(partial, manifest)
            manifest.write(partial)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            fsync_directory(self.directory)
            write_atomic(self.directory / "latest", final.name + "\n")

        return self._attempt_on_main(publish)

    def _verify(self, directory: Path) -> CheckpointManifest:
        """Raises: DamagedCheckpoint, on every rank alike."""
        manifest: CheckpointManifest | None = None
        found: list[str] = []
        try:
            manifest = read_manifest(directory)
        except DamagedCheckpoint as damage:
            found.append(str(damage))
        if manifest is not None:
            names = sorted(manifest.files)[self.layout.rank :: self.layout.world_size]
            found += problems(directory, manifest, names)
        merged = sorted({text for part in self._gather(found) for text in part})
        if merged:
            raise DamagedCheckpoint("; ".join(merged))
        assert manifest is not None
        return manifest

    def _remove_old(self) -> None:
        section = self.section
        there = checkpoint_steps(self.directory)
        self._losses = {step: loss for step, loss in self._losses.items() if step in there}
        for step in to_remove(
            there,
            section.keep,
            section.keep_every,
            self._losses,
            section.keep_best,
        ):
            # Renamed first: a folder that is half removed must not look like a checkpoint.
            leaving = self.directory / f"step_{step}.removed"
            shutil.rmtree(leaving, ignore_errors=True)
            (self.directory / f"step_{step}").rename(leaving)
        for leaving in self.directory.glob("step_*.removed"):
            shutil.rmtree(leaving, ignore_errors=True)
        for torn in self.directory.glob("step_*.partial"):
            shutil.rmtree(torn, ignore_errors=True)

    def _attempt(self, action: Callable[[], None]) -> list[str]:
        """Do it on every rank; returns the failures of all ranks, the same everywhere."""
        failure: str | None = None
        try:
            action()
        except OSError as error:
            failure = f"rank {self.layout.rank}: {error.strerror or error}"
        return [text for text in self._gather(failure) if text is not None]

    def _attempt_on_main(self, action: Callable[[], None]) -> list[str]:
        return self._attempt(action if self.layout.is_main else lambda: None)

    def _gather(self, value: Value) -> list[Value]:
        if self.layout.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.layout.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def _from_main(self, value: Value) -> Value:
        return self._gather(value)[0]

    def _barrier(self) -> None:
        if self.layout.world_size > 1:
            dist.barrier()


def _measured_names(module: Any) -> set[str]:
    """Names under which a score meter of this process may hold directions."""
    names = set(named_parts(module))
    return names if head_of(module) is None else names | {HEAD}


def _fresh_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def _write_all(pending: list[tuple[Path, Any]], folder: Path) -> dict[str, FileRecord]:
    """Records by path relative to the folder. Raises: OSError."""
    return {
        path.relative_to(folder).as_posix(): write_tensors(path, state) for path, state in pending
    }


def require_whole(folder: Path, manifest: CheckpointManifest) -> None:
    """Every file must be seen from here, at its length. Raises: OSError."""
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != record.bytes:
            raise OSError(f"{name}, which was written, is not there whole")
