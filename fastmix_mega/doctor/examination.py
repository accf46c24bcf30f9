"""The parts of the examination in their order, each through the real launcher."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmix_mega.doctor import failures, machine
from fastmix_mega.doctor.commands import Outcome, run
from fastmix_mega.doctor.findings import Finding, as_json, failed, has_failed, ok, skipped, verdict
from fastmix_mega.doctor.searches import Searches, processes_for
from fastmix_mega.files import write_json
from fastmix_mega.model.kernels import Capabilities

LIMIT_SECONDS = 180.0
"""Of one part."""
MEMORY_TOLERANCE = 0.1
"""By which the peak of the user's step may exceed the plan's."""


@dataclass(frozen=True)
class Patient:
    """What is examined."""

    config: str | None
    """The user's configuration; None leaves its step out, and takes data parallelism."""
    overrides: list[str]
    mode: str
    processes: int
    """On this machine."""
    output: Path
    machines: int = 1
    machine: int = 0
    """This one's number."""
    rendezvous: str = ""
    """host:port of number 0."""


def examine(patient: Patient) -> bool:
    """Run all parts, print the verdict and write the JSON; on the first machine.

    Returns:
        Whether all is well.
    """
    begun = time.monotonic()
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="fastmix-doctor-") as folder:
        for finding in _Examination(patient, Path(folder)).findings():
            findings.append(finding)
    well = not has_failed(findings)
    output = patient.output
    if patient.machine > 0:
        if well:
            return True
        # The first machine may know no more than that this one did not answer.
        output = output.with_suffix(f".machine{patient.machine}{output.suffix}")
    write_json(output, as_json(findings, time.monotonic() - begun))
    print(f"{verdict(findings)}\nfor a maintainer: {output}")
    return well


class _Examination:
    def __init__(self, patient: Patient, folder: Path) -> None:
        self._patient, self._folder = patient, folder
        self._started = 0

    def findings(self) -> Iterator[Finding]:
        """What all machines do together comes first, so that none waits for the first one."""
        yield from self._machine()
        yield from self._groups()
        yield self._step()
        if self._patient.machine > 0:
            return
        for kind in failures.KINDS:
            yield self._failing(kind)
        processes = processes_for(self._patient.processes)
        yield from Searches(self._folder, processes, _say).findings(Capabilities.here())

    def _part(
        self, part: str, together: bool = True
    ) -> tuple[Outcome, list[dict[str, Any]] | None]:
        """One part in processes of all machines (or of this one); what each process found, on the
        first machine."""
        patient, output = self._patient, self._folder / f"{part}.json"
        _say(part)
        words = ["doctor", *([patient.config] if patient.config else []), *patient.overrides]
        words += ["--part", part, "--output", str(output), "--mode", patient.mode]
        words += ["--nproc", str(patient.processes)]
        if patient.machines > 1 and together:
            # A port of its own for each start: the last one's may not be free yet.
            host, _, port = patient.rendezvous.rpartition(":")
            self._started += 1
            words += ["--nnodes", str(patient.machines), "--node-rank", str(patient.machine)]
            words += ["--rendezvous", f"{host}:{int(port) + self._started}"]
        done = run(words, LIMIT_SECONDS)
        return done, json.loads(output.read_text()) if output.exists() else None

    def _machine(self) -> Iterator[Finding]:
        done, everyone = self._part("machine")
        if done.code or everyone is None:
            yield from self._unfinished("processes", done)
        else:
            yield from machine.findings_of(everyone)

    def _groups(self) -> Iterator[Finding]:
        done, everyone = self._part("groups")
        if done.code or everyone is None:
            yield from self._unfinished("process groups", done)
            return
        names = sorted({name for each in everyone for name in each})
        if not names:
            yield skipped("process groups", "one process has nobody to talk to")
        for name in names:
            yield _group(name, [each[name] for each in everyone if name in each])

    def _unfinished(self, name: str, done: Outcome) -> Iterator[Finding]:
        if done.code:
            how = "hangs" if done.code == 124 else f"exit code {done.code}"
            yield failed(name, f"{how} after {done.seconds:.0f} s", log=done.end)
        elif self._patient.machine == 0:
            yield failed(name, "nothing was written", log=done.end)

    def _failing(self, kind: str) -> Finding:
        name = "a process is killed" if kind == "killed" else "a process raises"
        if self._patient.processes == 1:
            return skipped(name, "needs two processes")
        done, _ = self._part(kind, together=False)
        mark, seen = done.seen(failures.MARK), done.seen(failures.KINDS[kind])
        if mark is None or seen is None or done.code in (0, 124):
            return failed(name, f"is not reported; exit code {done.code}", log=done.end)
        if seen - mark > failures.LIMIT_SECONDS:
            return failed(name, f"is reported after {seen - mark:.0f} s", log=done.end)
        return ok(name, f"reported after {max(0.0, seen - mark):.1f} s, exit code {done.code}")

    def _step(self) -> Finding:
        name = "your configuration"
        if self._patient.config is None:
            return skipped(name, "none was given: fastmix doctor CONFIG")
        done, everyone = self._part("step")
        if done.code or everyone is None:
            if done.code == 0 and self._patient.machine > 0:
                return ok(name, "ran; see the first machine")
            return failed(name, f"exit code {done.code}", log=done.end)
        worst = max(everyone, key=lambda each: each["peak_bytes"] / each["planned_bytes"])
        return _step_finding(name, worst, everyone)


def _group(name: str, found: Sequence[dict[str, Any]]) -> Finding:
    name = f"group {name}"
    wrong = sorted({text for each in found for text in each["wrong"]})
    if wrong:
        return failed(name, f"gives wrong values: {', '.join(wrong)}")
    speeds = [each["all_reduce"] for each in found]
    text = f"{found[0]['size']} processes, all-reduce {min(speeds)} to {max(speeds)} GB/s"
    if "point_to_point" in found[0]:
        text += f", point to point {min(each['point_to_point'] for each in found)} GB/s"
    return ok(name, text, measured=list(found))


def _step_finding(name: str, worst: dict[str, Any], everyone: Sequence[dict[str, Any]]) -> Finding:
    peak, plan = worst["peak_bytes"], worst["planned_bytes"]
    text = f"{worst['tokens_per_second']:,.0f} tokens/s"
    if worst["mfu"] is not None:
        text += f", MFU {worst['mfu']:.1%}"
    if not peak:
        return ok(name, f"{text} (memory is measured on CUDA)", processes=list(everyone))
    text += f"; peak {peak / 1e9:.2f} GB, plan {plan / 1e9:.2f} GB"
    verdict_of = failed if peak > plan * (1 + MEMORY_TOLERANCE) else ok
    return verdict_of(name, text, processes=list(everyone))


def _say(part: str) -> None:
    print(f"doctor: {part} ...", file=sys.stderr, flush=True)
