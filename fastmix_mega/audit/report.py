"""All rules over a blend file, and what to tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastmix_mega.audit import amount_rules, file_rules
from fastmix_mega.audit.case import HARMS, Case, Finding, Run, read_case
from fastmix_mega.errors import MISSHAPEN, UserError
from fastmix_mega.export.units import Size

WORDS = {
    "fails": "THE RUN WOULD FAIL",
    "wrong": "THE RUN WOULD BE WRONG",
    "warning": "warning",
    "note": "note",
}


def audit(
    path: Path,
    run: Run,
    known: str | None = None,
    sizes: Mapping[str, Size] | None = None,
    root: Path | None = None,
) -> tuple[list[Case], list[Finding]]:
    """The blend's cases, one a stage, and all findings, the most harmful first.

    Raises:
        UserError: if the file, or a target, cannot be read.
    """
    file_rules.unreadable_targets(list(run.targets))
    cases = read_case(path, known, run, sizes or {}, root)
    found: list[Finding] = []
    for case in cases:
        for rule in (*amount_rules.RULES, *file_rules.RULES):
            try:
                found += [finding for finding in rule(case) if finding not in found]
            except UserError:
                raise
            except MISSHAPEN as error:
                raise UserError(
                    f"{path} is no {case.format} file: it is misshapen ({error!r:.200})"
                ) from None
    return cases, sorted(found, key=lambda finding: HARMS.index(finding.harm))


def harmful(findings: list[Finding]) -> bool:
    """Whether the run would fail or be wrong."""
    return any(finding.harm in ("fails", "wrong") for finding in findings)


def describe(cases: list[Case], findings: list[Finding]) -> list[str]:
    """The table of every stage, and the findings with what to do."""
    lines = []
    for case in cases:
        title = f"stage {case.blend.stage}: " if case.blend.stage else ""
        lines.append(f"{title}{case.format}, {len(case.leaves)} sources")
        lines += [f"  {note}" for note in case.blend.notes]
        wide = max(6, *(len(leaf.name) for leaf in case.leaves))
        lines.append(f"{'source':<{wide}}       given  of tokens    epochs")
        for leaf in case.leaves:
            share = "        ?" if leaf.share is None else f"{leaf.share:9.3%}"
            times = "        ?" if leaf.epochs is None else f"{leaf.epochs:9,.2f}"
            lines.append(f"{leaf.name:<{wide}}  {leaf.part.weight:10.6g}  {share} {times}")
    for finding in findings:
        lines += [f"{WORDS[finding.harm]}: {finding.text}", f"    {finding.do}"]
    if not findings:
        lines.append("nothing was found")
    return lines
