"""A TransformerEngine that is installed and broken, as real ones are: in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastmix_mega.model.engine_trial import VARIABLE

ASK = (
    "from fastmix_mega.model.kernels import Capabilities; here = Capabilities.here(); "
    "print(here.transformer_engine, '|', here.engine_error)"
)
IMPORT = (
    "from fastmix_mega.cli.imports import import_libraries; import_libraries(); "
    "from megatron.core.models.gpt import GPTModel; print('imported')"
)


def python(program: str, path: Path, **variables: str) -> str:
    # What this process has found must not stand for it.
    kept = {name: text for name, text in os.environ.items() if name != VARIABLE}
    environment = kept | {"PYTHONPATH": f"{path}:{Path.cwd()}"} | variables
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package whose part for torch does not load."""
    folder = tmp_path / "transformer_engine"
    (folder / "pytorch").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('libnvrtc was not found')\n")
    (folder / "pytorch" / "__init__.py").touch()
    return tmp_path


def test_a_package_that_does_not_load_is_told(package: Path) -> None:
    assert python(ASK, package) == "None | RuntimeError: libnvrtc was not found"


def test_megatron_core_is_imported_beside_it(package: Path) -> None:
    """Its own `except ImportError` would let the loader's error through."""
    assert python(IMPORT, package) == "imported"


def test_a_package_without_its_part_for_torch_is_no_engine(package: Path) -> None:
    (package / "transformer_engine" / "__init__.py").write_text("")
    (package / "transformer_engine" / "pytorch" / "__init__.py").write_text("import no_such_part\n")
    assert "ModuleNotFoundError: No module named 'no_such_part'" in python(ASK, package)


def test_a_package_that_loads_is_taken_in_its_version(package: Path) -> None:
    for path in ("__init__.py", "pytorch/__init__.py"):
        (package / "transformer_engine" / path).write_text("")
    info = package / "transformer_engine-2.10.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: transformer-engine\nVersion: 2.10.0\n"
    )
    assert python(ASK, package) == "2.10.0 |"


def test_one_trial_is_enough_for_all_processes(package: Path) -> None:
    found = {VARIABLE: json.dumps({"version": None, "error": "told by the parent"})}
    assert python(ASK, package, **found) == "None | told by the parent"
