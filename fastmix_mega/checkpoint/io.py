"""How a checkpoint's tensors go to disk and come back: never half-noticed, never as free pickles.

DeepSpeed writes in the middle of its own collectives: an error on one rank (a full disk) would
leave the others waiting. So its checkpoint engine only collects what is to be written; we write
afterwards, where an error can be agreed on. Reading uses torch's restricted unpickler with a
short list of the types that DeepSpeed and numpy put into a checkpoint.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from deepspeed.runtime.checkpoint_engine import CheckpointCommitInfo, TorchCheckpointEngine

from fastmix_mega.checkpoint.manifest import FileRecord
from fastmix_mega.errors import UserError


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


class RecordingFile:
    """Writes to a file, and takes the checksum of what it is given while the disk takes it.

    The checksum is of what was meant to be written: a disk that keeps something else is found out
    when the file is read, and reading it back now would only ask the system's memory.

    Args:
        file: open for writing, at its start.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._length = 0
        self._beside = ThreadPoolExecutor(1)

    def write(self, data: memoryview) -> int:
        """Raises: OSError."""
        # The memory is the caller's: both are done with it at the end.
        hashed = self._beside.submit(self._digest.update, data)
        try:
            self._file.write(data)
        finally:
            hashed.result()
        self._length += len(data)
        return len(data)

    def flush(self) -> None:
        """To the disk. Raises: OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def record(self) -> FileRecord:
        """Of all that was written; nothing can be after it."""
        self._beside.shutdown()
        return FileRecord(bytes=self._length, sha256=self._digest.hexdigest())


def write_tensors(path: Path, state: Any) -> FileRecord:
    """torch.save, durably.

    Returns:
        Length and checksum of what was written.

    Raises:
        OSError: also where torch turns a full disk into a RuntimeError.
    """
    with path.open("wb") as file:
        recording = RecordingFile(file)
        try:
            torch.save(state, cast("BinaryIO", recording))
        except RuntimeError as error:
            raise OSError(f"{path.name}: {_why(error)}") from error
        finally:
            record = recording.record()
        recording.flush()
    return record


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


class UnreadableTensors(UserError):
    """A file that torch cannot read, or that holds more than data."""


def load_tensors(path: Path, map_location: Any = None, mmap: bool = False) -> Any:
    """torch.load that builds nothing but tensors, arrays and the few types listed here.

    Args:
        path: of the file.
        map_location: the device.
        mmap: leave tensors in the file until they are read.

    Raises:
        OSError: if there is no such file.
        UnreadableTensors: if it is damaged, is no file of ours, or would run a program.
    """
    _require_plain_archive(path)
    try:
        allow_safe_types()
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        found = re.search(
            r"(GLOBAL|Unsupported (?:class|operand)|Can only) [^\n]{0,100}", str(error)
        )
        what = f" ({found[0]})" if found else ""
        raise UnreadableTensors(
            f"{path} holds something other than tensors and numbers{what}, which could run a "
            "program; it was not opened"
        ) from None
    # A broken archive makes torch and its unpickler fail in every way that they know.
    except (RuntimeError, LookupError, AttributeError, TypeError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreadableTensors(f"{path} cannot be read: {reason}") from None
    except RecursionError:
        raise UnreadableTensors(f"{path} cannot be read: it is nested too deeply") from None


def _require_plain_archive(path: Path) -> None:
    """Raises: UnreadableTensors for what torch.save does not write, such as packed gigabytes."""
    if not path.is_file():
        path.stat()  # FileNotFoundError where there is none
        raise UnreadableTensors(f"{path} is no ordinary file")
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise UnreadableTensors(f"{path} is no file that torch.save has written") from None
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > size:
        raise UnreadableTensors(f"{path} unpacks to more than it is; torch.save writes no such")


def allow_safe_types() -> None:
    """Tell torch's restricted unpickler what else checkpoints hold. A second call does nothing.

    Not by its `safe_globals`: the end of one such block would end those around it too.
    """
    torch.serialization.add_safe_globals(_safe_types())


def _safe_types() -> list[Any]:
    """What a checkpoint may hold besides tensors and Python's own plain types."""
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
