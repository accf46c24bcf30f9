"""Is preprocessing killed at random moments, and resumed, the same byte for byte?

    python -m tests.stress.kill_preprocess corpus.jsonl --tokenizer tokenizer.model --kills 20
    python -m tests.stress.kill_preprocess chats.jsonl --mode sft --tokenizer tokenizer.model

Every round starts anew, kills the whole process group with SIGKILL at a random moment of the time
that an uninterrupted run takes, gives the same command again, and compares. With --mode sft the
corpus holds conversations, and their loss masks are compared too.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path, help="some megabytes, so that there are many units")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--mode", choices=("text", "sft"), default="text")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    words = [sys.executable, "-m", "data_tools.preprocess", str(options.corpus), "--workers", "2"]
    words += ["--mode", options.mode, "--tokenizer", str(options.tokenizer), "--output-prefix"]
    kinds = ["bin", "idx", "json"] + ["mask.bin", "mask.idx"] * (options.mode == "sft")
    dice = random.Random(options.seed)
    killed = different = kept = joining = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.perf_counter()
        subprocess.run([*words, str(folder / "whole")], check=True, capture_output=True)
        duration = time.perf_counter() - begin
        wanted = [(folder / f"whole.{kind}").read_bytes() for kind in kinds]
        while killed < options.kills:
            command = [*words, str(folder / "out")]
            process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            time.sleep(dice.uniform(0, duration))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
            process.wait()
            parts = len(list(folder.glob("out.parts/*.json"))) - 1
            kept += parts > 0
            joining += bool(list(folder.glob("out.*.partial")))
            done = subprocess.run(command, capture_output=True, text=True)
            found = [(folder / f"out.{kind}") for kind in kinds]
            same = done.returncode == 0 and [path.read_bytes() for path in found] == wanted
            if not same:
                different += 1
                print(f"after {parts} parts: exit code {done.returncode}\n{done.stderr[-1000:]}")
            for path in found:
                path.unlink(missing_ok=True)
    print(
        f"{killed} kills within {duration:.1f} s (seed {options.seed}): {different} different; "
        f"{kept} left finished parts, {joining} met the joining"
    )
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
