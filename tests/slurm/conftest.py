"""A real Slurm for these tests, started once; skipped, with the reason, where it cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.jobs import Jobs

SCRIPT = Path(__file__).parent / "start_slurm.sh"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "scancel")


@pytest.fixture(scope="session")
def slurm() -> Iterator[dict[str, str]]:
    """The environment for Slurm's commands: three nodes are up."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    reason = f"no {', '.join(missing)}" if missing else "not root" if os.geteuid() else ""
    if reason:
        if os.environ.get("FASTMIX_DEMAND_SLURM"):
            pytest.fail(f"these tests are demanded here: {reason}")
        pytest.skip(f"needs a Slurm to start: {reason}")
    # munged wants no folder above its socket to be private, as pytest's are.
    directory = tempfile.mkdtemp(prefix="fastmix-slurm-")
    os.chmod(directory, 0o755)
    environment = os.environ | {"SLURM_CI_DIR": directory}
    try:
        subprocess.run([SCRIPT, "start"], env=environment, check=True)
        yield environment | {"SLURM_CONF": f"{directory}/etc/slurm.conf"}
    finally:
        subprocess.run([SCRIPT, "stop"], env=environment, check=True)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def jobs(slurm: dict[str, str], tmp_path: Path) -> Iterator[Jobs]:
    """Afterwards no job is left, and all nodes are up."""
    given = Jobs(slurm, tmp_path)
    yield given
    given.call("scancel", "--user=root")
    given.bring_back()
