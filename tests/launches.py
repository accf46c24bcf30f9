"""Launches with faults, one after another in a process that has imported the libraries once.

    python -m tests.launches REQUESTS.json

REQUESTS.json is a list of {"faults", "arguments", "run_dir"}: `fastmix ARGUMENTS` is started by the
launcher in two processes that have the faults (see tests/faulty.py). Its output is this process's,
with a line `exit code N` after each launch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from fastmix_mega.cli.launch import Healing, run_processes
from tests import faulty

PROCESSES = 2


def main() -> None:
    for request in json.loads(Path(sys.argv[1]).read_text()):
        os.environ["FAULT"] = request["faults"]
        healing = Healing(request["run_dir"])
        code = run_processes(faulty.main, request["arguments"], PROCESSES, healing=healing)
        print(f"exit code {code}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
