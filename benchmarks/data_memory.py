"""Peak memory of `preprocess` by the size of the input, and of `merge` by the number of files.

    python -m benchmarks.data_memory corpus.jsonl --tokenizer tokenizer.model

The corpus is repeated until the input has each size. Needs about three times the largest size on
disk. The figure is the largest resident set of any single process, from the kernel.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fastmix_mega.data.indexed_writer import IndexedWriter

PEAK = """
import resource, runpy, sys
module = sys.argv[1]
sys.argv = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__")
finally:
    own, children = (resource.getrusage(who).ru_maxrss for who in (0, -1))
    print("peak", own, children, file=sys.stderr)
"""


def peaks(*words: str) -> tuple[float, float]:
    """MB of the command's own process and of its largest worker."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=True
    )
    own, workers = done.stderr.rsplit("peak", 1)[1].split()
    return int(own) / 1024, int(workers) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path, help="JSONL with a text in every line")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 2000], help="MB of input")
    parser.add_argument("--backend", default="library")
    parser.add_argument("--files", type=int, nargs="+", default=[5, 500], help="to merge")
    options = parser.parse_args()
    unit = options.corpus.read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "in.jsonl"
        for size in options.sizes:
            with source.open("wb") as file:
                while file.tell() < size * 1_000_000:
                    file.write(unit)
            own, workers = peaks(
                *("data_tools.preprocess", str(source), "--workers", "2", "--fresh"),
                *("--backend", options.backend),
                *("--tokenizer", str(options.tokenizer), "--output-prefix", str(folder / "out")),
            )
            print(
                f"preprocess {size:>5} MB: {own:.0f} MB, largest worker {workers:.0f} MB",
                flush=True,
            )
        source.unlink()
        for path in folder.glob("out*"):
            path.unlink()
        dice = np.random.default_rng(0)
        prefixes = [folder / f"{number:03}" for number in range(max(options.files))]
        for prefix in prefixes:
            with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
                tokens = dice.integers(0, 60_000, 1_000_000)
                for start in range(0, len(tokens), 200):
                    writer.add_document(tokens[start : start + 200])
        for count in options.files:
            listing = folder / "list"
            listing.write_text("".join(f"{prefix}\n" for prefix in prefixes[:count]))
            own, _ = peaks(
                *("data_tools.merge", "--from", str(listing)),
                *("--output-prefix", str(folder / "out")),
            )
            print(f"merge {count:>4} files ({2 * count} MB of tokens): {own:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
