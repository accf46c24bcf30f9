"""What the audit makes of pip-audit's reports, of the forms that 2.10.1 printed."""

from __future__ import annotations

import pytest

from tests.supply.audit import verdict

SOUND = '{"name": "joblib", "version": "1.6.0", "vulns": []}'
WEAK = (
    '{"name": "jinja2", "version": "3.1.6", "vulns": [{"id": "GHSA-1", "fix_versions": ["99"], '
    '"aliases": [], "description": "s"}]}'
)
UNKNOWN = (
    '{"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited"}'
)


@pytest.mark.parametrize(
    ("report", "errors", "code", "said"),
    [
        ([SOUND, UNKNOWN], "", 0, "1 of 2 packages asked for, 0 with"),
        ([SOUND, WEAK], "Found 1 known vulnerability", 1, "jinja2 3.1.6: GHSA-1\n2 of 2"),
        ([UNKNOWN], "", 0, "skipped: the package index knows no vulnerabilities (1 asked)"),
        (None, "ERROR:pip_audit._cli:Could not connect to PyPI's feed", 0, "skipped: the database"),
        (None, "requests.exceptions.ProxyError: HTTPSConnectionPool", 0, "skipped: the database"),
        (None, "ERROR:pip_audit._cli:requirement jinja2 has no hash", 1, "pip-audit failed: ERROR"),
    ],
)
def test_verdict(report: list[str] | None, errors: str, code: int, said: str) -> None:
    text = "" if report is None else f'{{"dependencies": [{", ".join(report)}], "fixes": []}}'
    found = verdict(text, errors)
    assert found[0] == code
    assert said in found[1]
