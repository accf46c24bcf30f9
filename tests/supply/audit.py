"""Has anything in requirements.lock a known vulnerability? Where nobody answers, that is said.

    python -m tests.supply.audit .venv/supply/bin/pip-audit

pip-audit asks PyPI. Mirrors of it often serve files alone: then every package is "not found".
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(f"skipped: the database cannot be reached ({done.stderr.strip()[-300:]})")
        return 0
    asked = [each for each in packages if "skip_reason" not in each]
    if not asked:
        print(f"skipped: the package index here knows no vulnerabilities ({len(packages)} asked)")
        return 0
    found = [each for each in asked if each["vulns"]]
    for each in found:
        names = ", ".join(one["id"] for one in each["vulns"])
        print(f"{each['name']} {each['version']}: {names}")
    print(f"{len(asked)} of {len(packages)} packages asked for, {len(found)} with vulnerabilities")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
