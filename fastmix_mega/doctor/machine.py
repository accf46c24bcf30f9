"""What each process sees of its machine: GPU, driver, cores, limits, NCCL and TransformerEngine."""

from __future__ import annotations

import os
import platform
import resource
import socket
from collections.abc import Sequence
from typing import Any

from fastmix_mega.doctor.findings import Finding, failed, ok, skipped
from fastmix_mega.model.engine_trial import try_transformer_engine
from fastmix_mega.parallel import devices
from fastmix_mega.parallel.layout import Layout

FEWEST_FILES = 4096
"""Open files that a process should be allowed: NCCL and data loading take hundreds."""
VARIABLES = ("NCCL_", "CUDA_", "PYTORCH_", "TORCH_", "OMP_NUM_THREADS", "GLOO_", "UCX_", "FI_")


def facts(layout: Layout) -> dict[str, Any]:
    """Of this process; plain data."""
    import torch

    trial = try_transformer_engine()
    found: dict[str, Any] = {
        "rank": layout.rank,
        "host": socket.gethostname(),
        "device": str(layout.device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "driver": devices.driver_version(),
        "cores": devices.usable_cores(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "locked_memory": resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        "transformer_engine": trial.version,
        "transformer_engine_error": trial.error,
        "environment": {
            name: text for name, text in sorted(os.environ.items()) if name.startswith(VARIABLES)
        },
    }
    if layout.device.type == "cuda":
        properties = torch.cuda.get_device_properties(layout.device)
        free, total = torch.cuda.mem_get_info(layout.device)
        found |= {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory": total,
            "free": free,
            "uuid": str(getattr(properties, "uuid", layout.device.index)),
            "nccl": _nccl_version(),
        }
    return found


def _nccl_version() -> str:
    import torch

    try:
        return ".".join(map(str, torch.cuda.nccl.version()))
    except (RuntimeError, AttributeError):
        return "unknown"


def findings_of(everyone: Sequence[dict[str, Any]]) -> list[Finding]:
    """What the facts of all processes say together."""
    first = everyone[0]
    hosts = sorted({each["host"] for each in everyone})
    found = [
        ok(
            "processes",
            f"{len(everyone)} on {len(hosts)} machine(s); torch {first['torch']}, Python "
            f"{first['python']}",
            processes=list(everyone),
        ),
        _devices(everyone),
        _cores(everyone),
        _open_files(everyone),
        _engine(everyone),
    ]
    software = ("torch", "torch_cuda", "driver", "python")
    mixed = [name for name in software if _differ(everyone, name)]
    if mixed:
        found.append(failed("same software", f"machines differ in {', '.join(mixed)}"))
    return found


def _differ(everyone: Sequence[dict[str, Any]], name: str) -> bool:
    return len({each[name] for each in everyone}) > 1


def _devices(everyone: Sequence[dict[str, Any]]) -> Finding:
    if "gpu" not in everyone[0]:
        return ok("devices", f"CPU, gloo ({everyone[0]['cores']} cores usable by each process)")
    places = [(each["host"], each["uuid"]) for each in everyone]
    if len(set(places)) < len(places):
        return failed("devices", "several processes have the same GPU; check CUDA_VISIBLE_DEVICES")
    kinds = sorted({each["gpu"] for each in everyone})
    busy = [each["rank"] for each in everyone if each["free"] < 0.9 * each["memory"]]
    text = (
        f"{', '.join(kinds)}, one a process; driver {everyone[0]['driver']}, CUDA "
        f"{everyone[0]['torch_cuda']}, NCCL {everyone[0]['nccl']}"
    )
    if busy:
        return failed("devices", f"{text}; memory is in use already on ranks {busy[:16]}")
    return ok("devices", text)


def _cores(everyone: Sequence[dict[str, Any]]) -> Finding:
    """Under CUDA one core launches kernels, and others read data and run NCCL's proxy."""
    fewest = min(each["cores"] for each in everyone)
    per_host = max(
        sum(each["host"] == host for each in everyone) for host in {e["host"] for e in everyone}
    )
    text = f"{fewest} usable core(s) for {per_host} process(es) of a machine"
    if "gpu" in everyone[0] and fewest < per_host:
        return failed("cores", f"{text}; ask for more (slurm/run.sh: --cpus-per-task)")
    return ok("cores", text)


def _open_files(everyone: Sequence[dict[str, Any]]) -> Finding:
    fewest = min(each["open_files"] for each in everyone)
    text = f"{fewest} a process (ulimit -n)"
    return (failed if 0 <= fewest < FEWEST_FILES // 4 else ok)("open files", text)


def _engine(everyone: Sequence[dict[str, Any]]) -> Finding:
    name = "TransformerEngine"
    if errors := sorted({each["transformer_engine_error"] for each in everyone} - {""}):
        return failed(name, f"is installed, but cannot be imported: {errors[0]}")
    if _differ(everyone, "transformer_engine"):
        return failed(name, "is on some machines only, or in different versions")
    version = everyone[0]["transformer_engine"]
    return skipped(name, "not installed") if version is None else ok(name, f"version {version}")
