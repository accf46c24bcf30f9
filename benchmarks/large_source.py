"""Time and memory to open a source of 10^9 samples and draw a batch, against megatron-core's index.

    python -m benchmarks.large_source tokenizer.model

The source is a sparse file that takes no room: 10^9 documents of 4,097 tokens, 8 TB of tokens and
20 GB of index. megatron-core's GPTDataset builds its index for one epoch of 10^7 such documents.
Every measurement is a process of its own; memory is what it gained in resident size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fastmix_mega.data.indexed_format import HEADER, MAGIC

LENGTH, SEQUENCE = 4097, 4096
COMMON = """
import json, resource, sys, time
def resident():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return int(fields["VmRSS"].split()[0]) / 1024
prefix, sequence, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
"""
OURS = (
    COMMON
    + """
import numpy as np
from fastmix_mega.data.source import TokenSource
memory, begin = resident(), time.perf_counter()
source = TokenSource("large", [prefix], sequence, seed=1)
opened = time.perf_counter()
batch = source.samples(np.arange(256))
drawn = time.perf_counter()
assert batch.shape == (256, sequence + 1)
print(json.dumps([source.num_samples, opened - begin, drawn - opened, resident() - memory]))
"""
)
MEGATRON = (
    COMMON
    + """
import numpy as np
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import Split
from megatron.core.tokenizers import MegatronTokenizer
config = GPTDatasetConfig(
    random_seed=1, sequence_length=sequence, blend=([prefix], None), split="1,0,0",
    tokenizer=MegatronTokenizer.from_pretrained(
        sys.argv[5], metadata_path={"library": "sentencepiece"}
    ),
    reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False,
    path_to_cache=folder,
)
memory, begin = resident(), time.perf_counter()
low = IndexedDataset(prefix)
documents = np.arange(len(low), dtype=np.int32)
samples = int(sys.argv[4])
data = GPTDataset(low, prefix, documents, samples, Split.train, config)
opened = time.perf_counter()
batch = [data[number] for number in range(256)]
drawn = time.perf_counter()
print(json.dumps([len(data), opened - begin, drawn - opened, resident() - memory]))
"""
)


def write_sparse(prefix: Path, documents: int) -> None:
    """A .bin of zeros and an .idx whose last entry alone is written."""
    with Path(f"{prefix}.bin").open("wb") as file:
        file.truncate(2 * LENGTH * documents)
    with Path(f"{prefix}.idx").open("wb") as file:
        file.truncate(HEADER.size + 12 * documents + 8 * (documents + 1))
        file.write(HEADER.pack(MAGIC, 1, 8, documents, documents + 1))
        file.seek(HEADER.size + 4 * (documents - 1))
        file.write(np.int32(LENGTH).tobytes())
        file.seek(HEADER.size + 12 * documents - 8)
        file.write(np.int64(2 * LENGTH * (documents - 1)).tobytes())


def write_index(prefix: Path, documents: int) -> None:
    """A .bin of zeros and a whole .idx, which megatron-core reads."""
    with Path(f"{prefix}.bin").open("wb") as file:
        file.truncate(2 * LENGTH * documents)
    with Path(f"{prefix}.idx").open("wb") as file:
        file.write(HEADER.pack(MAGIC, 1, 8, documents, documents + 1))
        file.write(np.full(documents, LENGTH, np.int32).tobytes())
        file.write((np.arange(documents, dtype=np.int64) * 2 * LENGTH).tobytes())
        file.write(np.arange(documents + 1, dtype=np.int64).tobytes())


def measure(program: str, *words: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(name: str, rounds: list[list[float]]) -> None:
    samples, opened, drawn, memory = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(
        f"{name:14} {samples:>16,.0f} samples: opened in {opened * 1000:.1f} ms, 256 samples in "
        f"{drawn * 1000:.1f} ms, {memory:.1f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tokenizer", help="a sentencepiece model, which GPTDataset wants to see")
    parser.add_argument("--samples", type=int, default=10**9)
    parser.add_argument("--documents", type=int, default=10**7, help="for megatron-core's index")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        large, small = Path(name) / "large", Path(name) / "small"
        write_sparse(large, options.samples)
        write_index(small, options.documents)
        words = (str(SEQUENCE), name)
        rounds = [measure(OURS, str(large), *words) for _ in range(options.rounds)]
        report("ours", rounds)
        rounds = [measure(OURS, str(small), *words) for _ in range(options.rounds)]
        report("ours", rounds)
        further = (str(options.documents), options.tokenizer)
        rounds = [measure(MEGATRON, str(small), *words, *further)]
        report("megatron-core", rounds)


if __name__ == "__main__":
    main()
