"""The GPUs of this machine: are there enough, can torch use them, and how are they set up?

    python -m fastmix_mega.parallel.devices --at-most N    how many processes to start here

Everything that asks about the machine and not about the run stands here.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path

from fastmix_mega.errors import UserError

DRIVER_VERSION = Path("/proc/driver/nvidia/version")
DEVICE_FILES = "/dev"
HIDE_GPUS = "CUDA_VISIBLE_DEVICES"


def usable_cores() -> int:
    """CPU cores that this process may run on; a batch system may give it fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus(
    environment: Mapping[str, str] | None = None, devices: str = DEVICE_FILES
) -> list[str]:
    """Device files of NVIDIA GPUs that the environment does not hide, whatever torch makes of them.

    Args:
        environment: by default this process's.
        devices: the folder of device files.
    """
    environment = os.environ if environment is None else environment
    if environment.get(HIDE_GPUS, "all").strip() in ("", "-1", "NoDevFiles"):
        return []
    return sorted(
        str(path) for path in Path(devices).glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)
    )


def require_usable_gpus() -> None:
    """A GPU that torch cannot use must not become a slow run on the CPU without a word.

    Raises:
        UserError: naming the driver and torch's CUDA.
    """
    import torch

    gpus = visible_gpus()
    if not gpus or torch.cuda.is_available():
        return
    built = torch.version.cuda
    made_for = "the CPU alone" if built is None else f"CUDA {built}"
    raise UserError(
        f"{len(gpus)} GPU(s) are visible ({', '.join(gpus[:8])}), but torch {torch.__version__}, "
        f"built for {made_for}, cannot use them (driver {driver_version() or 'unknown'}). Install "
        "a driver or a torch that fit each other; or set CUDA_VISIBLE_DEVICES= (empty) to run on "
        "the CPU"
    )


def problems(processes: int) -> list[str]:
    """Why so many processes cannot run on this machine; empty if they can.

    Args:
        processes: on this machine alone.
    """
    import torch

    try:
        require_usable_gpus()
    except UserError as error:
        return [str(error)]
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and processes > gpus:
        return [
            f"{processes} processes cannot share this machine's {gpus} GPU(s); start --nproc {gpus}"
        ]
    return []


def local_rank() -> int:
    """This process's number on its machine.

    Raises:
        UserError: if a launcher has said the rank in the run alone.
    """
    if "LOCAL_RANK" not in os.environ:
        raise UserError(
            "RANK is set but LOCAL_RANK is not, so that it is unknown which GPU this process has. "
            "Start with --nproc or torchrun; another launcher must set RANK, LOCAL_RANK, "
            "WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
        )
    return int(os.environ["LOCAL_RANK"])


def driver_version() -> str | None:
    """Of NVIDIA's kernel driver, for example 550.54.15; None where there is none."""
    try:
        text = DRIVER_VERSION.read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else text.splitlines()[0].strip()


def describe(device: str) -> str:
    """One line for the log: what the run computes on.

    Args:
        device: `cuda` or `cpu`.
    """
    import torch

    if device == "cpu":
        return f"device: CPU, {usable_cores()} core(s) usable, torch {torch.__version__}"
    return (
        f"device: {torch.cuda.get_device_name()}, driver {driver_version() or 'unknown'}, torch "
        f"{torch.__version__} for CUDA {torch.version.cuda}"
    )


def prepare_cuda(tensor: int, context: int) -> None:
    """Settings that must be in the environment before CUDA starts; what the user has set stays.

    Args:
        tensor: processes that share every matrix.
        context: processes that share every sequence.
    """
    if tensor > 1 or context > 1:
        # One queue: a collective starts in the order in which it was asked for, as megatron-core's
        # overlap of communication with a layer's backward pass needs it.
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
        # Activations of many sizes would leave holes between them otherwise.
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"


def processes_here(at_most: int) -> int:
    """How many processes this machine can run, at most so many: one a GPU, or all on the CPU."""
    import torch

    require_usable_gpus()
    return min(at_most, torch.cuda.device_count()) if torch.cuda.is_available() else at_most


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--at-most", type=int, default=8, metavar="N")
    try:
        print(processes_here(parser.parse_args().at_most))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
