"""Is preprocessing as fast as the tokenizer's library?

    python -m benchmarks.preprocess corpus.jsonl --tokenizer tokenizer.model [--rounds 5] \
        [--megatron /path/to/Megatron-LM/tools/preprocess_data.py]

Alternates between the library alone (one process, texts in memory), `data_tools.preprocess` with
one and two workers, and, where its path is given, Megatron-LM's tool with one worker. Prints the
medians of text bytes per second as ratios, with the spread of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from fastmix_mega.data.tokenizer import Tokenizer

BATCH = 256


def library_alone(texts: list[str], tokenizer: Tokenizer) -> None:
    for start in range(0, len(texts), BATCH):
        tokenizer.encode(texts[start : start + BATCH])


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def command(words: list[str], folder: str, number: int) -> list[str]:
    return [*words, "--output-prefix", f"{folder}/out{number}"]


def main() -> None:
    parser = argparse.ArgumentParser(description="preprocess against the tokenizer's library")
    parser.add_argument("corpus", type=Path, help="JSONL with a text in every line")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megatron", type=Path, help="Megatron-LM's tools/preprocess_data.py")
    options = parser.parse_args()
    tokenizer = Tokenizer(options.tokenizer)
    texts = [orjson.loads(line)["text"] for line in options.corpus.read_bytes().splitlines()]
    size = sum(len(text.encode()) for text in texts)
    ours = [sys.executable, "-m", "data_tools.preprocess", str(options.corpus)]
    ours += ["--tokenizer", str(options.tokenizer), "--fresh"]
    runs: dict[str, list[str]] = {
        "1 worker": ours,
        "2 workers": [*ours, "--workers", "2"],
    }
    if options.megatron:
        kind = "SentencePieceTokenizer"
        runs["Megatron-LM, 1 worker"] = [
            *(sys.executable, str(options.megatron), "--input", str(options.corpus)),
            *("--tokenizer-type", kind, "--tokenizer-model", str(options.tokenizer)),
            *("--append-eod", "--workers", "1"),
        ]
    times: dict[str, list[float]] = {name: [] for name in ["library alone", *runs]}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            times["library alone"].append(timed(lambda: library_alone(texts, tokenizer)))
            for name, words in runs.items():
                whole = command(words, folder, number)
                times[name].append(
                    timed(
                        lambda whole=whole: subprocess.run(whole, check=True, capture_output=True)
                    )
                )
    base = statistics.median(times["library alone"])
    print(
        f"{size / 1e6:.1f} MB of text, {options.rounds} rounds; library alone "
        f"{size / base / 1e6:.2f} MB/s"
    )
    for name, found in times.items():
        middle = statistics.median(found)
        spread = (max(found) - min(found)) / middle
        print(f"{name:24} {base / middle:6.3f} of the library  (spread {spread:.0%})")


if __name__ == "__main__":
    main()
