"""The weights in a checkpoint of `fastmix train` or `fastmix search`, whatever its layout was.

A checkpoint holds one file for every tensor- and pipeline-parallel process, under the same names on
all of them. A parameter is put together from its parts when it is asked for; files are mapped into
memory, so that a process reads no more than what it takes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor

from fastmix_mega.checkpoint.io import load_tensors
from fastmix_mega.checkpoint.manifest import (
    NAME,
    CheckpointManifest,
    DamagedCheckpoint,
    problems,
    read_manifest,
)
from fastmix_mega.checkpoint.store import checkpoint_steps
from fastmix_mega.config.schema import Config, load_common_config
from fastmix_mega.config.sections import ModelSection
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.model.initialize import EMBEDDING_NAME, unshard
from fastmix_mega.reading import read_json


class RunWeights:
    """The model of one checkpoint.

    Args:
        path: a run folder, whose newest checkpoint is taken, or one checkpoint's folder.

    Attributes:
        directory: the checkpoint's folder.
        config: of the run that saved it.
        model: its model, with every size and the embedding's rows.
        tokenizers: the SHA-256 of its tokenizer, by path.
        window: None; attention always looks back over the whole sequence.

    Raises:
        UserError: if there is no whole checkpoint, or its weights are not stored by name.
    """

    def __init__(self, path: str | Path) -> None:
        self.directory = _checkpoint_of(Path(path))
        run_dir = self.directory.parent.parent
        self.config: Config = load_common_config(run_dir / "config.yaml")
        try:
            self.manifest: CheckpointManifest = read_manifest(self.directory)
        except DamagedCheckpoint as damage:
            raise UserError(f"{self.directory} is damaged: {damage}") from None
        sizes = {"zero": 0, "tensor": 1, "pipeline": 1} | self.manifest.layout
        if sizes["zero"] == 3:
            raise UserError(
                f"{self.directory} was saved under ZeRO stage 3, which scatters the weights over "
                "processes; continue that run under parallel.zero: 1 or 2 from the start, and use "
                "its checkpoint"
            )
        self._tensor, self._pipeline = sizes["tensor"], sizes["pipeline"]
        self._states: dict[tuple[int, int], dict[str, Tensor]] = {}
        rows = self._state(0, 0)[EMBEDDING_NAME].shape[0] * self._tensor
        self.model: ModelSection = self.config.model.model_copy(update={"vocab_size": rows})
        sha256 = _tokenizer_sha256(run_dir)
        self.tokenizers = {} if sha256 is None else {self.config.tokenizer: sha256}
        self.window: int | None = None
        self._stages: dict[str, int] = {}

    def names(self) -> list[str]:
        """Of all parameters."""
        if not self._stages:
            for stage in range(self._pipeline):
                for name in self._state(stage, 0):
                    self._stages.setdefault(name, stage)
        return list(self._stages)

    def read(self, name: str) -> Tensor:
        """A whole parameter, on the CPU, in the checkpoint's dtype."""
        if name not in self.names():
            raise UserError(f"{self.directory} has no parameter {name}")
        stage = self._stages[name]
        parts = [self._state(stage, rank)[name] for rank in range(self._tensor)]
        return unshard(name, parts)

    def damage(self, rank: int = 0, size: int = 1) -> list[str]:
        """What is wrong with this process's share of the files, by their checksums."""
        files = [_file(number) for number in range(self._tensor * self._pipeline)]
        return problems(self.directory, self.manifest, files[rank::size])

    def open_tokenizer(self) -> Tokenizer:
        """Raises: UserError if it is missing, or has changed since the model was trained."""
        tokenizer = Tokenizer(self.config.tokenizer)
        if self.tokenizers and tokenizer.sha256 not in self.tokenizers.values():
            raise UserError(
                f"the tokenizer {tokenizer.path} has changed since {self.directory} was trained"
            )
        return tokenizer

    def identity(self) -> dict[str, Any]:
        """What a run that starts here records."""
        return {
            "kind": "checkpoint",
            "path": str(self.directory),
            "step": self.manifest.step,
            "sha256": hashlib.sha256((self.directory / NAME).read_bytes()).hexdigest(),
        }

    def _state(self, stage: int, rank: int) -> dict[str, Tensor]:
        place = (stage, rank)
        if place not in self._states:
            path = self.directory / _file(stage * self._tensor + rank)
            try:
                module: dict[str, Tensor] = load_tensors(path, "cpu", mmap=True)["module"]
            except OSError as error:
                raise UserError(f"{path} cannot be read: {error.strerror}") from None
            except (KeyError, TypeError, IndexError):
                raise UserError(f"{path} holds no model") from None
            if not isinstance(module, dict) or not all(
                isinstance(name, str) and name and isinstance(value, Tensor)
                for name, value in module.items()
            ):
                raise UserError(f"{path} holds no tensors by name")
            if sum(value.nbytes for value in module.values()) > 2 * path.stat().st_size:
                # A view can say that one number is a matrix of any size.
                raise UserError(f"{path} names larger tensors than it holds")
            # Chunks of an interleaved stage have their number in front.
            self._states[place] = {
                name.split(".", 1)[1] if name[0].isdigit() else name: value
                for name, value in module.items()
            }
        return self._states[place]


def _file(number: int) -> str:
    return f"mp_rank_{number:02d}_model_states.pt"


def _checkpoint_of(path: Path) -> Path:
    if (path / NAME).is_file():
        return path.resolve()
    steps = checkpoint_steps(path / "checkpoints")
    if not steps:
        raise UserError(
            f"{path} holds no finished checkpoint; name a run folder with checkpoints/step_N, or "
            "one of these"
        )
    return (path / "checkpoints" / f"step_{steps[-1]}").resolve()


def _tokenizer_sha256(run_dir: Path) -> str | None:
    try:
        found = read_json(run_dir / "run.json").get("tokenizer")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, str) else None
