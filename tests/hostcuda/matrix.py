"""The long matrix: every layout, method and precision on hostcuda against the CPU.

    python -m tests.hostcuda.matrix [NAME ...]

Prints a line a case, and ends with exit code 1 if one differs. About ten minutes on two cores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.hostcuda import build
from tests.hostcuda.cases import DAILY, LONG, differences, problems
from tests.tiny import write_conversations, write_corpora


def main() -> int:
    if reason := build.why_not():
        print(reason)
        return 1
    cases, wanted, failed = DAILY | LONG, sys.argv[1:], []
    with tempfile.TemporaryDirectory() as folder:
        corpora = Path(folder) / "corpora"
        corpora.mkdir()
        write_corpora(corpora)
        write_conversations(corpora)
        for number, name in enumerate(wanted or cases):
            begun, case = time.monotonic(), cases[name]
            try:
                found = differences(case, corpora, Path(folder) / str(number))
                wrong = problems(case, found)
                told = ", ".join(f"{key} {value:.1e}" for key, value in found.items())
            except AssertionError as error:
                wrong, told = ["failed"], str(error)
            failed += [name] * bool(wrong)
            verdict = "WRONG" if wrong else "ok"
            print(f"{verdict:5} {name} ({time.monotonic() - begun:.0f} s): {told}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
