from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.stress.soak import Sample, sample, slope


def test_slope_equals_numpys_fit() -> None:
    random = np.random.default_rng(0)
    seconds = np.arange(0, 600, 5.0)
    memory = 400 + 12 * seconds / 3600 + random.normal(0, 0.3, len(seconds))
    found = [Sample(when, size, 10, 3) for when, size in zip(seconds, memory, strict=True)]
    fit, covariance = np.polyfit(seconds / 3600, memory, 1, cov=True)
    rate, error = slope(found)
    assert rate == pytest.approx(fit[0])
    assert error == pytest.approx(np.sqrt(covariance[0, 0]))


QUIET = "import os, sys; print(1); input(); file = open(os.devnull); print(2); input()"
"""A process that opens one file when it is told to, and tells when it has."""


def test_an_open_file_is_counted() -> None:
    """In a process of its own: in this one, earlier tests' threads may end at any time."""
    command, pipe = [sys.executable, "-u", "-c", QUIET], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = sample(process.pid, 0.0)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        assert sample(process.pid, 0.0).handles == before.handles + 1
        process.stdin.write("\n")
    assert before.megabytes > 1
    assert before.threads >= 1
