"""Tiny searches through the real command: known losses, and runs that go on where they stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmix_mega.doctor import corpora
from fastmix_mega.doctor.commands import FASTMIX, Outcome, run
from fastmix_mega.doctor.expected import losses_of
from fastmix_mega.doctor.findings import Finding, failed, ok, skipped
from fastmix_mega.model.kernels import Capabilities

LIMIT_SECONDS = 600.0
"""Of one search: far more than a slow machine needs."""


def processes_for(available: int) -> int:
    """The most that share the tiny batch evenly."""
    return max(count for count in (1, 2, 4, 8) if count <= max(1, available))


@dataclass(frozen=True)
class Searches:
    """Where they are run, and in how many processes of this machine."""

    folder: Path
    processes: int
    say: Callable[[str], None]
    program: Sequence[str] = FASTMIX
    """How the command is started."""

    def findings(self, machine: Capabilities) -> Iterator[Finding]:
        """All of them, one after another."""
        corpora.write_corpora(self.folder / "data")
        plain = {"layers": "torch", "compile": "off"}
        yield self._variant("plain", "fp32", plain)
        yield self._variant("plain", "bf16", plain)
        if machine.compiler and machine.cuda:
            yield self._variant("compiled", "fp32", {"layers": "torch", "compile": "on"})
        else:
            yield skipped("search, compiled", "compiles for CUDA with Triton alone")
        if machine.transformer_engine is not None and machine.cuda:
            engine = {"layers": "transformer_engine", "compile": "off"}
            yield self._variant("TransformerEngine", "bf16", engine)
        else:
            yield skipped("search, TransformerEngine", "not here, or no CUDA")
        yield self._again("resumed", {})
        if self.processes > 1:
            yield self._again("another layout", {"tensor": 2})
        else:
            yield skipped("another layout", "needs two processes")

    def _run(self, name: str, content: dict[str, Any]) -> Outcome:
        self.say(name)
        path = corpora.write_settings(self.folder / f"{name.replace(' ', '_')}.yaml", content)
        words = ["search", str(path), "--nproc", str(self.processes)]
        return run(words, LIMIT_SECONDS, self.program)

    def _variant(self, kind: str, precision: str, kernels: dict[str, str]) -> Finding:
        name = f"search, {kind}, {precision}"
        run_dir = self.folder / f"{kind}_{precision}"
        data = self.folder / "data"
        content = corpora.settings(data, run_dir, precision=precision, kernels=kernels)
        done = self._run(name, content)
        return _compared(name, done, run_dir, precision)

    def _again(self, name: str, parallel: dict[str, int]) -> Finding:
        """The second half of the first search, from its checkpoint."""
        name = f"search, {name}"
        first, run_dir = self.folder / "plain_fp32", self.folder / name.replace(" ", "_")
        half = first / "checkpoints" / f"step_{corpora.HALF}"
        if not half.is_dir():
            return failed(name, "the first search has left no checkpoint")
        shutil.copytree(first, run_dir)
        shutil.rmtree(run_dir / "checkpoints" / f"step_{corpora.STEPS}", ignore_errors=True)
        kernels = {"layers": "torch", "compile": "off"}
        data = self.folder / "data"
        content = corpora.settings(
            data, run_dir, precision="fp32", kernels=kernels, parallel=parallel
        )
        done = self._run(name, content)
        if done.code == 0 and done.seen(f"continuing after step {corpora.HALF}") is None:
            return failed(name, "began anew instead of going on", log=done.end)
        return _compared(name, done, run_dir, "fp32")


def _compared(name: str, done: Outcome, run_dir: Path, precision: str) -> Finding:
    if done.code:
        return failed(name, f"exit code {done.code} after {done.seconds:.0f} s", log=done.end)
    expected, found = corpora.expected_losses(precision), losses_of(run_dir)
    if len(found) != len(expected):
        return failed(name, f"{len(found)} steps instead of {len(expected)}", log=done.end)
    worst = max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))
    limit = corpora.TOLERANCE[precision]
    text = f"losses differ from the CPU's by {worst:.1e} at most (limit {limit:.0e})"
    details = {"losses": found, "seconds": round(done.seconds, 1)}
    if not worst <= limit:
        return failed(name, text, **details, log=done.end)
    return ok(name, f"{text}; {done.seconds:.0f} s", **details)
