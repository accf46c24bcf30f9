"""How a checkpoint's tensors go to disk and come back: never half-noticed, never as free pickles.

DeepSpeed writes in the middle of its own collectives: an error on one rank (a full disk) would
leave the others waiting. So its checkpoint engine only collects what is to be written; we write
afterwards, where an error can be agreed on. Reading uses torch's restricted unpickler with a
short list of the types that DeepSpeed and numpy put into a checkpoint.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepspeed.runtime.checkpoint_engine import CheckpointCommitInfo, TorchCheckpointEngine


class CollectingEngine(TorchCheckpointEngine):
    """Keeps what DeepSpeed saves in `pending` instead of writing it."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[Path, Any]] = []

    def create(self, info: CheckpointCommitInfo) -> None:
        del info
        self.pending = []

    def save(self, state_dict: Any, path: str) -> None:
        self.pending.append((Path(path), state_dict))

    def load(self, path: str, map_location: Any = None) -> Any:
        return load_tensors(Path(path), map_location)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """The folder is made by us, once, where a failure can be agreed on."""


def collect_from(deepspeed_engine: Any) -> CollectingEngine:
    """Make a DeepSpeed engine hand over what it saves."""
    collecting = CollectingEngine()
    deepspeed_engine.checkpoint_engine = collecting
    # DeepSpeed copies two scripts beside the tensors in the midst of its collectives; a full disk
    # there would stop one rank only, and a checkpoint holds data, not programs.
    deepspeed_engine._copy_recovery_script = _copy_nothing
    return collecting


def _copy_nothing(save_path: str) -> None:
    del save_path


def write_tensors(path: Path, state: Any) -> None:
    """torch.save, durably.

    Raises:
        OSError: also where torch turns a full disk into a RuntimeError.
    """
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            raise OSError(f"{path.name}: {_why(error)}") from error
        file.flush()
        os.fsync(file.fileno())


def _why(error: BaseException) -> str:
    """Why torch could not write, in the disk's words where it gave some.

    Torch's zip writer says where in its source it noticed (`inline_container.cc`), and holds what
    the disk said, if anything, as the error before.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    text = str(error).splitlines()[0]
    return "the disk took only a part of it" if "inline_container" in text else text


def load_tensors(path: Path, map_location: Any = None, mmap: bool = False) -> Any:
    """torch.load that builds nothing but tensors, arrays and the few types listed here.

    Args:
        path: of the file.
        map_location: the device.
        mmap: leave tensors in the file until they are read.
    """
    with torch.serialization.safe_globals(_safe_types()):
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)


def _safe_types() -> list[Any]:
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address
    from numpy._core.multiarray import _reconstruct, scalar

    kinds = ("float64", "float32", "int64", "int32", "bool")
    return [
        *(LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address),
        # An array without elements is written with `bytes`.
        *(np.ndarray, np.dtype, _reconstruct, scalar, bytes),
        *(type(np.dtype(kind)) for kind in kinds),
    ]
