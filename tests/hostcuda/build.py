"""Compile hostcuda.cpp, once for each text of it and each torch; nothing here imports torch."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

TORCH = "2.13.0"
"""The version whose headers hostcuda.cpp is written for."""
SOURCE = Path(__file__).with_name("hostcuda.cpp")
CACHE = Path(__file__).parents[2] / "test-cache" / "hostcuda"


def why_not() -> str:
    """Why it cannot be compiled here; empty if it can."""
    installed = version("torch")
    if installed.split("+")[0] != TORCH:
        return f"hostcuda is written for torch {TORCH}, and {installed} is installed"
    if not sys.platform.startswith("linux"):
        return f"hostcuda needs Linux, and this is {sys.platform}"
    if any((torch_folder() / "lib").glob("libtorch_cuda.so")):
        return "this torch has the real CUDA library"
    if shutil.which("g++") is None:
        return "hostcuda needs a C++ compiler, and there is no g++ here"
    return ""


def torch_folder() -> Path:
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def library() -> Path:
    """The compiled library; a quarter of a minute at the first call.

    Raises:
        RuntimeError: with the compiler's words.
    """
    key = hashlib.sha256(SOURCE.read_bytes() + version("torch").encode()).hexdigest()[:16]
    path = CACHE / f"libhostcuda-{key}.so"
    if path.exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    torch, partial = torch_folder(), path.with_suffix(f".{os.getpid()}.partial")
    command = [
        *("g++", "-O1", "-std=c++20", "-shared", "-fPIC", "-D_GLIBCXX_USE_CXX11_ABI=1"),
        *(f"-I{torch / 'include'}", f"-I{torch / 'include/torch/csrc/api/include'}"),
        *(str(SOURCE), "-o", str(partial), f"-L{torch / 'lib'}"),
        *("-lc10", "-ltorch_cpu", "-ltorch"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"hostcuda does not compile:\n{done.stderr[-4000:]}")
    partial.rename(path)
    return path
