"""Has anything in requirements.lock a known vulnerability? Where nobody answers, that is said.

    python -m tests.supply.audit .venv/supply/bin/pip-audit

pip-audit asks PyPI. Mirrors of it often serve files alone: then every package is "not found". A
pip-audit that fails for another reason than the network is a failure.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

UNREACHABLE = re.compile(
    r"Could not connect|not redirecting|requests\.exceptions\.\w*(Connection|Proxy|SSL|Timeout)"
)
"""In what pip-audit says: its own words, and errors of requests that it does not catch."""
LOCK = Path(__file__).parent.parent.parent / "requirements.lock"


def main() -> int:
    done = subprocess.run(
        [
            *(sys.argv[1], "--requirement", str(LOCK), "--require-hashes", "--disable-pip"),
            *("--progress-spinner", "off", "--format", "json"),
        ],
        capture_output=True,
        text=True,
    )
    code, text = verdict(done.stdout, done.stderr)
    print(text)
    return code


def verdict(report: str, errors: str) -> tuple[int, str]:
    """The exit code, and what to say.

    Args:
        report: what pip-audit printed: JSON, or nothing where it gave up.
        errors: what it said beside it.
    """
    try:
        packages = json.loads(report)["dependencies"]
    except ValueError:
        said = errors.strip()[-300:]
        if UNREACHABLE.search(errors):
            return 0, f"skipped: the database cannot be reached ({said})"
        return 1, f"pip-audit failed: {said}"
    asked = [each for each in packages if "skip_reason" not in each]
    if not asked:
        return 0, f"skipped: the package index knows no vulnerabilities ({len(packages)} asked)"
    found = [each for each in asked if each["vulns"]]
    lines = [
        f"{each['name']} {each['version']}: {', '.join(one['id'] for one in each['vulns'])}"
        for each in found
    ]
    lines.append(
        f"{len(asked)} of {len(packages)} packages asked for, {len(found)} with vulnerabilities"
    )
    return int(bool(found)), "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
