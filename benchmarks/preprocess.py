"""How fast is `preprocess`, against the tokenizer's library alone and against Megatron-LM's tools?

    python -m benchmarks.preprocess corpus.jsonl --tokenizer tokenizer.model --rounds 3 \
        --megatron Megatron-LM/tools/preprocess_data.py

The runs alternate; the medians count. Every tool also does a file of one document, whose time (a
start of Python with its imports) is subtracted for "no start". "CPU" compares the processor time of
all processes, also without the start: it says what a core gets done where others use the machine
too. What Megatron-LM's tools write must be what ours writes, byte for byte. A tokenizer.json must
lie in a folder of its own. For hundreds of megabytes with gigatoken, leave the slow ones out:

    python -m benchmarks.preprocess corpus.jsonl --tokenizer hf/tokenizer.json --only-gigatoken \
        --megatron-fast Megatron-LM/tools/preprocess_data_fast.py
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import orjson

from data_tools.fast_encoding import FastEncoder
from fastmix_mega.data.tokenizer import Tokenizer

BATCH = 256


def encode_all(texts: list[str], encode: Callable[[list[str]], object]) -> None:
    for start in range(0, len(texts), BATCH):
        encode(texts[start : start + BATCH])


@dataclass(frozen=True)
class Cost:
    """Seconds."""

    wall: float
    processor: float


def measured(work: Callable[[], object]) -> Cost:
    begin, used = time.perf_counter(), processor_time()
    work()
    return Cost(time.perf_counter() - begin, processor_time() - used)


def processor_time() -> float:
    """Of this process and of all that it started and that ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def middle(costs: list[Cost]) -> Cost:
    walls, processors = [cost.wall for cost in costs], [cost.processor for cost in costs]
    return Cost(statistics.median(walls), statistics.median(processors))


def our_commands(options: argparse.Namespace) -> dict[str, list[str]]:
    words = [sys.executable, "-m", "data_tools.preprocess", "--fresh"]
    words += ["--tokenizer", str(options.tokenizer)]
    commands = {}
    if not options.only_gigatoken:
        commands = {"ours, 1 worker": words, "ours, 2 workers": [*words, "--workers", "2"]}
    if options.gigatoken or options.only_gigatoken:
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
    parser.add_argument("--only-gigatoken", action="store_true", help="and not the slower ones")
    parser.add_argument("--megatron", type=Path, help="Megatron-LM's tools/preprocess_data.py")
    parser.add_argument("--megatron-fast", type=Path, help="and its preprocess_data_fast.py")
    parser.add_argument("--megatron-path", default="", help="folders of packages that they need")
    options = parser.parse_args()
    tokenizer = Tokenizer(options.tokenizer)
    texts = [orjson.loads(line)["text"] for line in options.corpus.read_bytes().splitlines()]
    size = sum(len(text.encode()) for text in texts)
    commands = our_commands(options) | megatron_commands(options)
    alone: dict[str, Callable[[list[str]], object]] = {}
    if not options.only_gigatoken:
        alone["library alone"] = tokenizer.encode
    if options.gigatoken or options.only_gigatoken:
        alone["gigatoken alone"] = FastEncoder(tokenizer).encode_fast
    times: dict[str, list[Cost]] = {name: [] for name in [*alone, *commands]}
    starts: dict[str, list[Cost]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = folder / "one.jsonl"
        one.write_bytes(orjson.dumps({"text": texts[0]}) + b"\n")
        for _ in range(options.rounds):
            for tool, encode in alone.items():
                times[tool].append(measured(partial(encode_all, texts, encode)))
            for number, (tool, words) in enumerate(commands.items()):
                for source, kept in ((one, starts), (options.corpus, times)):
                    prefix = folder / f"out{number}"
                    action = partial(run, words, source, prefix, options.megatron_path)
                    kept[tool].append(measured(action))
        contents = {
            tool: [path.read_bytes() for path in sorted(folder.glob(f"out{number}*.[bi]*"))]
            for number, tool in enumerate(commands)
        }
    print(f"{size / 1e6:.1f} MB of text, {len(texts)} documents, {options.rounds} rounds")
    base = middle(times[next(iter(alone))])
    print(f"{'':20} {'MB/s':>7} {'of first':>10} {'no start':>9} {'CPU':>6} {'spread':>7}  same")
    for tool, found in times.items():
        whole = middle(found)
        start = middle(starts[tool]) if tool in starts else Cost(0, 0)
        walls = [cost.wall for cost in found]
        spread = (max(walls) - min(walls)) / whole.wall
        same = contents[tool] == contents[next(iter(commands))] if tool in contents else ""
        print(
            f"{tool:20} {size / whole.wall / 1e6:7.2f} {base.wall / whole.wall:10.3f} "
            f"{base.wall / (whole.wall - start.wall):9.3f} "
            f"{base.processor / (whole.processor - start.processor):6.3f} {spread:7.0%}  {same}"
        )


if __name__ == "__main__":
    main()
