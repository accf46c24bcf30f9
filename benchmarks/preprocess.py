"""How fast is `preprocess`, against the tokenizer's library alone and against Megatron-LM's tools?

    python -m benchmarks.preprocess corpus.jsonl --tokenizer tokenizer.model --rounds 3 \
        --megatron Megatron-LM/tools/preprocess_data.py

The runs alternate; the medians count. Every tool also does a file of one document, whose time (a
start of Python with its imports) is subtracted for the second column. What Megatron-LM's tool
writes must be what ours writes, byte for byte. A tokenizer.json must lie in a folder of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from data_tools.fast_encoding import FastEncoder
from fastmix_mega.data.tokenizer import Tokenizer

BATCH = 256


def encode_all(texts: list[str], encode: Callable[[list[str]], object]) -> None:
    for start in range(0, len(texts), BATCH):
        encode(texts[start : start + BATCH])


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def our_commands(options: argparse.Namespace) -> dict[str, list[str]]:
    words = [sys.executable, "-m", "data_tools.preprocess", "--fresh"]
    words += ["--tokenizer", str(options.tokenizer)]
    commands = {"ours, 1 worker": words, "ours, 2 workers": [*words, "--workers", "2"]}
    if options.gigatoken:
        commands["ours, gigatoken, 1"] = [*words, "--backend", "gigatoken"]
        commands["ours, gigatoken, 2"] = [*words, "--backend", "gigatoken", "--workers", "2"]
    return commands


def megatron_commands(options: argparse.Namespace) -> dict[str, list[str]]:
    if Path(options.tokenizer).suffix == ".json":
        kind, model = "HuggingFaceTokenizer", Path(options.tokenizer).parent
    else:
        kind, model = "SentencePieceTokenizer", options.tokenizer
    words = ["--tokenizer-type", kind, "--tokenizer-model", str(model), "--append-eod"]
    commands = {}
    if options.megatron:
        for workers in ("1", "2"):
            program = [sys.executable, str(options.megatron), *words, "--workers", workers]
            commands[f"Megatron-LM, {workers}"] = program
    if options.megatron_fast:
        commands["Megatron-LM fast"] = [
            *(sys.executable, str(options.megatron_fast), *words),
            "--use-gigatoken",
        ]
    return commands


def run(words: list[str], source: Path, prefix: Path, further_path: str) -> None:
    """Start a tool; Megatron-LM's find their package above their folder."""
    ours = "data_tools.preprocess" in words
    environment = dict(os.environ)
    if ours:
        words = [*words, str(source)]
    else:
        environment["PYTHONPATH"] = f"{Path(words[1]).parent.parent}:{further_path}"
        words = [*words, "--input", str(source)]
    done = subprocess.run(
        [*words, "--output-prefix", str(prefix)], env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path, help="JSONL with a text in every line")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gigatoken", action="store_true", help="our other backend, too")
    parser.add_argument("--megatron", type=Path, help="Megatron-LM's tools/preprocess_data.py")
    parser.add_argument("--megatron-fast", type=Path, help="and its preprocess_data_fast.py")
    parser.add_argument("--megatron-path", default="", help="folders of packages that they need")
    options = parser.parse_args()
    tokenizer = Tokenizer(options.tokenizer)
    texts = [orjson.loads(line)["text"] for line in options.corpus.read_bytes().splitlines()]
    size = sum(len(text.encode()) for text in texts)
    commands = our_commands(options) | megatron_commands(options)
    alone: dict[str, Callable[[list[str]], object]] = {"library alone": tokenizer.encode}
    if options.gigatoken:
        alone["gigatoken alone"] = FastEncoder(tokenizer).encode_fast
    times: dict[str, list[float]] = {name: [] for name in [*alone, *commands]}
    starts: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = folder / "one.jsonl"
        one.write_bytes(orjson.dumps({"text": texts[0]}) + b"\n")
        for _ in range(options.rounds):
            for tool, encode in alone.items():
                times[tool].append(timed(lambda encode=encode: encode_all(texts, encode)))
            for number, (tool, words) in enumerate(commands.items()):
                for source, kept in ((one, starts), (options.corpus, times)):
                    prefix = folder / f"out{number}"
                    kept[tool].append(
                        timed(
                            lambda w=words, s=source, p=prefix: run(w, s, p, options.megatron_path)
                        )
                    )
        contents = {
            tool: [path.read_bytes() for path in sorted(folder.glob(f"out{number}*.[bi]*"))]
            for number, tool in enumerate(commands)
        }
    print(f"{size / 1e6:.1f} MB of text, {len(texts)} documents, {options.rounds} rounds")
    base = statistics.median(times["library alone"])
    print(f"{'':20} {'MB/s':>8} {'of library':>10} {'no start':>10} {'spread':>7}  same bytes")
    for tool, found in times.items():
        middle = statistics.median(found)
        spread = (max(found) - min(found)) / middle
        working = middle - statistics.median(starts[tool]) if tool in starts else middle
        same = contents[tool] == contents["ours, 1 worker"] if tool in contents else ""
        print(
            f"{tool:20} {size / middle / 1e6:8.2f} {base / middle:10.3f} {base / working:10.3f} "
            f"{spread:7.0%}  {same}"
        )


if __name__ == "__main__":
    main()
