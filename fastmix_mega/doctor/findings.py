"""What the doctor found: for people, and as JSON for a maintainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, Literal

Status = Literal["ok", "failed", "skipped"]
SCHEMA = "fastmix-doctor/1"
LIBRARIES = ("fastmix-mega", "torch", "deepspeed", "megatron-core", "numpy")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    text: str
    """One line: what was seen, or why not."""
    details: dict[str, Any] = field(default_factory=dict)
    """Numbers, and the end of the log of what failed."""


def ok(name: str, text: str, **details: Any) -> Finding:
    return Finding(name, "ok", text, details)


def failed(name: str, text: str, **details: Any) -> Finding:
    return Finding(name, "failed", text, details)


def skipped(name: str, text: str) -> Finding:
    return Finding(name, "skipped", text)


def verdict(findings: Sequence[Finding]) -> str:
    """The lines to read."""
    wide = max(len(each.name) for each in findings)
    marks = {"ok": "ok    ", "failed": "FAILED", "skipped": "-     "}
    lines = [f"{marks[each.status]} {each.name:<{wide}}  {each.text}" for each in findings]
    counts = {status: sum(each.status == status for each in findings) for status in marks}
    last = (
        f"{counts['failed']} of {len(findings)} failed"
        if counts["failed"]
        else f"all is well: {counts['ok']} ok, {counts['skipped']} do not apply here"
    )
    return "\n".join([*lines, "", last])


def has_failed(findings: Sequence[Finding]) -> bool:
    return any(each.status == "failed" for each in findings)


def as_json(findings: Sequence[Finding], seconds: float) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "versions": {name: version(name) for name in LIBRARIES},
        "seconds": round(seconds, 1),
        "failed": has_failed(findings),
        "findings": [asdict(each) for each in findings],
    }
