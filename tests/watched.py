"""One process under a watchdog, for tests: beats for a while, then waits for ever.

python -m tests.watched RANK PORT RUN_DIR
"""

from __future__ import annotations

import sys
import time

from fastmix_mega.training.guards.watchdog import Member, Watchdog

if __name__ == "__main__":
    rank, port, run_dir = sys.argv[1:]
    member = Member(int(rank), 2, lockstep=True)
    with Watchdog(member, 2.0, run_dir, ("127.0.0.1", int(port))) as dog:
        for step in range(8):
            dog.phase(step, "training")
            time.sleep(0.25)
        print("beats no more", flush=True)
        time.sleep(3600)
