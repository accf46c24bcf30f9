"""Do spoiled token files and corpora give a clear error or correct data? Thousands are tried.

    python -m tests.stress.fuzz_data --count 6000 --seed 1

A valid .bin/.idx/.manifest.json or (compressed) JSONL is spoiled in one to three places: bytes
changed, cut, added or swapped, numbers of the index and fields of the manifest replaced.
Every tool must end in a UserError that names the file, or give what a parser of its own, below,
reads from the same bytes; where a manifest is intact, that is what the file held before. Exit code
1 if anything else happened; case N of a seed is the same on every machine.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import itertools
import json
import lzma
import random
import shutil
import signal
import struct
import sys
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from backports import zstd

from data_tools import inspect, merge, preprocess_run, split, train_tokenizer, verify
from data_tools.bad_lines import BadLimits
from data_tools.readers import ReadOptions
from fastmix_mega.data.indexed_format import HEADER
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.source import TokenSource
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from tests.stress.fuzz_command import run_cases

WIDTHS = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 8: "u2"}
ODD_NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, -1, 127, 255, 65535, 2**31 - 1, -(2**31), 2**40)
ODD_VALUES = (None, True, 0, -1, 3, 2**70, 1.5, "", "uint16", "int32", "a" * 64, [], {}, [[1]])
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
}
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": zstd.decompress,
}
SECONDS = 30
"""After so long a case counts as a hang."""
Document = list[list[int]]
"""The sequences of a document."""


@dataclass(frozen=True)
class World:
    """The valid files that are spoiled."""

    folder: Path
    prefixes: list[Path]
    tokenizer: Tokenizer
    lines: list[bytes]


def build_world(folder: Path) -> World:
    """Four prefixes: with and without a manifest, of 2 and 4 bytes, with documents of sequences."""
    words = Path(json.__file__).read_text().split()
    dice = random.Random(0)
    texts = [" ".join(dice.choices(words, k=dice.randint(1, 60))) for _ in range(60)]
    texts += ["Ωμέγα 字 🦊", "a", " ", "\0\t\r\n", "</s> <s>", '"quoted\\"']
    rows: list[dict[str, Any]] = [
        {"text": text, "id": number, "score": number / 7} for number, text in enumerate(texts)
    ]
    lines = [
        json.dumps(row, ensure_ascii=number % 2 == 0).encode() + b"\n"
        for number, row in enumerate(rows)
    ]
    source = folder / "source.jsonl"
    source.write_bytes(b"".join(lines))
    model = folder / "t.model"
    train_tokenizer.train_tokenizer([source], model, train_tokenizer.Training(400))
    tokenizer = Tokenizer(model)
    prefixes = [folder / name for name in ("made", "wide", "bare", "nested")]
    preprocess_run.preprocess([source], model, prefixes[0])
    for prefix, dtype in zip(prefixes[1:], ("i4", "u2", "u2"), strict=True):
        with IndexedWriter(prefix, np.dtype(dtype), {"vocab_size": 400, "eod": 2}) as writer:
            for _ in range(dice.randint(20, 40)):
                writer.add_document(
                    [dice.randrange(400) for _ in range(dice.choice((0, 1, 9, 50)))]
                )
    for prefix in prefixes[2:]:
        Path(f"{prefix}.manifest.json").unlink()
    _join_documents(Path(f"{prefixes[3]}.idx"), dice)
    return World(folder, prefixes, tokenizer, lines)


def _join_documents(index: Path, dice: random.Random) -> None:
    """Leave out a third of the boundaries: documents of several sequences."""
    content = index.read_bytes()
    magic, version, code, count, _ = HEADER.unpack_from(content)
    inner = [number for number in range(1, count) if dice.random() < 0.67]
    boundaries = np.array([0, *inner, count], np.int64)
    body = content[HEADER.size : HEADER.size + 12 * count]
    header = HEADER.pack(magic, version, code, count, len(boundaries))
    index.write_bytes(header + body + boundaries.tobytes())


def spoil(content: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """Change bytes in one place."""
    start = dice.randint(0, len(content))
    end = min(len(content), start + dice.choice((1, 1, 2, 8, 100)))
    change = dice.randrange(8)
    if change == 0:
        return content[:start]
    if change == 1:
        return content + dice.randbytes(dice.choice((1, 2, 8, 20)))
    if change == 2:
        return content[:start] + content[end:]
    if change == 3:
        return content[:start] + dice.randbytes(dice.choice((1, 2, 4, 8))) + content[start:]
    if change == 4:
        return content[:start] + bytes(end - start) + content[end:]
    if change == 5:
        return dice.choice(others)
    bits = bytearray(content)
    for _ in range(dice.choice((1, 1, 4))):
        if bits:
            bits[dice.randrange(len(bits))] ^= 1 << dice.randrange(8)
    return bytes(bits)


def spoil_index(content: bytes, dice: random.Random) -> bytes:
    """Replace one number: of the header, a length, an offset or a boundary."""
    *_, count, boundaries = HEADER.unpack_from(content)
    lengths, offsets = HEADER.size, HEADER.size + 4 * count
    ends = offsets + 8 * count
    places = [
        *((place, form) for place, form in ((9, "<Q"), (17, "<B"), (18, "<Q"), (26, "<Q"))),
        (lengths + 4 * dice.randrange(count), "<i"),
        (offsets + 8 * dice.randrange(count), "<q"),
        (ends + 8 * dice.randrange(boundaries), "<q"),
    ]
    place, form = dice.choice(places)
    (old,) = struct.unpack_from(form, content, place)
    number = dice.choice((*ODD_NUMBERS, old + 1, old - 1, old + 2, 2 * old))
    bits = 8 * struct.calcsize(form)
    number &= (1 << bits) - 1
    raw = number.to_bytes(bits // 8, "little")
    return content[:place] + raw + content[place + bits // 8 :]


def spoil_manifest(content: bytes, dice: random.Random) -> bytes:
    fields = json.loads(content)
    name = dice.choice(list(fields))
    if dice.random() < 0.2:
        del fields[name]
    else:
        fields[name] = dice.choice(ODD_VALUES)
    return json.dumps(fields).encode()


def parse(prefix: Path) -> list[Document] | None:
    """What the two files hold, by the format's rules alone; None if they break one."""
    try:
        index, tokens = Path(f"{prefix}.idx").read_bytes(), Path(f"{prefix}.bin").read_bytes()
        magic, version, code, count, marks = HEADER.unpack_from(index)
    except (OSError, struct.error):
        return None
    size = HEADER.size + 12 * count + 8 * marks
    if magic != b"MMIDIDX\0\0" or version != 1 or code not in WIDTHS or len(index) != size:
        return None
    width = np.dtype(WIDTHS[code]).itemsize
    lengths = np.frombuffer(index, "<i4", count, HEADER.size).tolist()
    offsets = np.frombuffer(index, "<i8", count, HEADER.size + 4 * count).tolist()
    bounds = np.frombuffer(index, "<i8", marks, HEADER.size + 12 * count).tolist()
    place, sequences = 0, []
    for length, offset in zip(lengths, offsets, strict=True):
        if length < 0 or offset != place or place + length * width > len(tokens):
            return None
        sequences.append(np.frombuffer(tokens[place : place + length * width], WIDTHS[code]))
        place += length * width
    if place != len(tokens) or not bounds or bounds[0] != 0 or bounds[-1] != count:
        return None
    if any(first > second for first, second in itertools.pairwise(bounds)):
        return None
    found = [sequence.tolist() for sequence in sequences]
    return [found[first:second] for first, second in itertools.pairwise(bounds)]


def attempt(work: Callable[[], Any], name: str) -> Any:
    """The result, or None after a UserError that names the file."""
    try:
        return work()
    except UserError as error:
        if name not in str(error):
            raise AssertionError(f"the message does not name {name}: {error}") from None
        return None


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    """A hang is an error."""

    def stop(_signal: int, _frame: Any) -> None:
        raise TimeoutError(f"still at work after {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def require(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def merged(prefix: Path, output: Path) -> object:
    options = merge.MergeOptions(allow_empty=True, overwrite=True)
    return merge.merge([str(prefix)], output, options)


def token_case(world: World, dice: random.Random, here: Path) -> str:
    """Spoil a prefix and let every tool read it."""
    base, prefix = dice.choice(world.prefixes), here / "spoiled"
    whole = parse(base)
    kinds = [kind for kind in ("bin", "idx", "manifest.json") if Path(f"{base}.{kind}").exists()]
    files = {kind: Path(f"{base}.{kind}").read_bytes() for kind in kinds}
    before = dict(files)
    for _ in range(dice.choice((1, 1, 2, 3))):
        kind = dice.choice(kinds)
        style = dice.random()
        if (
            kind == "idx"
            and style < 0.6
            and len(files[kind]) > HEADER.size
            and (files["idx"] == before["idx"])
        ):
            files[kind] = spoil_index(files[kind], dice)
        elif kind == "manifest.json" and style < 0.6 and files[kind] == before[kind]:
            files[kind] = spoil_manifest(files[kind], dice)
        else:
            others = [
                path.read_bytes()
                for path in sorted(world.folder.glob(f"*.{kind}"))
                if path.is_file()
            ]
            files[kind] = spoil(files[kind], dice, others)
    for kind, content in files.items():
        Path(f"{prefix}.{kind}").write_bytes(content)
    if dice.random() < 0.02:
        Path(f"{prefix}.{dice.choice(kinds)}").unlink()
    kept_manifest = "manifest.json" in files and files["manifest.json"] == before["manifest.json"]
    kept_manifest = kept_manifest and Path(f"{prefix}.manifest.json").exists()
    now = parse(prefix)
    right = whole if kept_manifest else now

    refused = attempt(lambda: IndexedTokens(prefix), "spoiled") is None
    said = list(verify.problems(str(prefix), True, 400))
    if not said:
        require(now is not None and right == now, "verify finds nothing wrong")
        high = [token for document in now or [] for part in document for token in part]
        require(not high or 0 <= min(high) <= max(high) < 400, "tokens outside the vocabulary")
    require(all("spoiled" in line for line in said), "a problem without a file")
    require(not refused or bool(said), "verify passes what cannot be opened")

    if attempt(lambda: merged(prefix, here / "merged"), "spoiled") is not None:
        require(right is not None and parse(here / "merged") == right, "merge gives other data")
        require(not list(verify.problems(str(here / "merged"), False)), "merge gives a broken file")
    if (
        attempt(
            lambda: split.split(str(prefix), here / "side", 0.3, 0.2, overwrite=True), "spoiled"
        )
        is not None
    ):
        sides = [parse(here / f"side_{name}") for name in ("train", "valid", "test")]
        found = sorted(document for side in sides for document in side or [])
        require(right is not None and found == sorted(right), "split gives other data")
    code = inspect.main([str(prefix), "--tokenizer", world.tokenizer.path])
    require(code in (0, 2), "inspect")
    source = attempt(lambda: TokenSource("a", [str(prefix)], 16, 0), "spoiled")
    if source is not None and source.num_samples:
        samples = source.samples(np.arange(source.num_samples))
        require(samples.shape == (source.num_samples, 17), "samples of another shape")
    if refused:
        return "refused when opened"
    return "refused by verify" if said else "correct"


def expected_rows(content: bytes) -> tuple[list[str], list[int]]:
    """Texts, and numbers of bad lines, by Python's own JSON; a byte order mark is no text."""
    texts, bad = [], []
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line.decode("utf-8"), parse_constant=float.fromhex)
            json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8")
            text = row["text"]
        except (ValueError, TypeError, KeyError, IndexError, RecursionError):
            text = None
        if isinstance(text, str) and text:
            texts.append(text)
        else:
            bad.append(number)
    return texts, bad


def text_case(world: World, dice: random.Random, here: Path, suffix: str) -> str:
    """Spoil JSONL, before or after it is compressed, and preprocess it."""
    lines = dice.choices(world.lines, k=dice.randint(1, 12))
    content = b"".join(lines)
    others = [dice.choice(world.lines), b"", b"\n", b"\xef\xbb\xbf" + content, b"[" * 2000]
    if suffix:
        content = COMPRESS[suffix](content)
        others = [COMPRESS[suffix](b""), content + content, b"", world.lines[0]]
    for _ in range(dice.choice((1, 1, 2, 3))):
        content = spoil(content, dice, others)
    source = here / f"spoiled.jsonl{suffix}"
    source.write_bytes(content)
    options = preprocess_run.Options(
        ReadOptions(largest=100_000),
        bad=BadLimits(10**6, 1.0, allow_empty=True),
        run=preprocess_run.RunOptions(fresh=True, overwrite=True),
    )
    prefix = here / "out"
    model = Path(world.tokenizer.path)
    done = attempt(lambda: preprocess_run.preprocess([source], model, prefix, options), "spoiled")
    plain: bytes | None = content
    if suffix:
        try:
            plain = DECOMPRESS[suffix](content)
        except (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, zstd.ZstdError):
            plain = None
    if done is None:
        begun = (plain or b"").removeprefix(codecs.BOM_UTF8).lstrip()
        broken = bool(suffix) and plain != b"".join(lines)
        # A file that begins with a bracket is a JSON array, and none of these is a whole one.
        require(broken or begun.startswith(b"["), "plain lines are refused as a whole")
        return "refused"
    require(plain is not None, "a broken stream gives data")
    texts, bad = expected_rows(plain or b"")
    model_alone = sentencepiece.SentencePieceProcessor(model_file=world.tokenizer.path)
    wanted = [[[*model_alone.encode(text), model_alone.eos_id()]] for text in texts]
    require(parse(prefix) == wanted, "other documents than Python's own JSON reads")
    kept = Path(f"{prefix}.bad.jsonl")
    listed = [json.loads(line)["line"] for line in kept.read_text().splitlines()] if bad else []
    require(listed == bad and kept.exists() == bool(bad), f"bad lines {listed}, not {bad}")
    return "bad lines listed" if bad else "correct"


def fuzz(count: int, seed: int, directory: Path, first: int = 0) -> list[str]:
    """Returns what went wrong, a text a case."""
    folder = directory / "valid"
    folder.mkdir()
    world = build_world(folder)
    outcomes, wrong = Counter[str](), []
    for number in range(first, first + count):
        dice = random.Random(f"{seed}/{number}")
        here = directory / "case"
        here.mkdir()
        kind = dice.choices(("tokens", "jsonl", *COMPRESS), (12, 5, 1, 1, 1, 1))[0]
        try:
            with _limit(SECONDS), _silence():
                if kind == "tokens":
                    outcome = token_case(world, dice, here)
                else:
                    outcome = text_case(world, dice, here, "" if kind == "jsonl" else kind)
        except Exception:
            outcome = "wrong"
            wrong.append(f"case {number} of seed {seed} ({kind}):\n{traceback.format_exc()}")
            print(wrong[-1], flush=True)
        family = kind if kind in ("tokens", "jsonl") else "compressed"
        outcomes[f"{family}: {outcome}"] += 1
        shutil.rmtree(here)
    print(f"{count} cases (seed {seed}): {dict(sorted(outcomes.items()))}")
    return wrong


if __name__ == "__main__":
    sys.exit(run_cases(fuzz, __doc__ or "", 6000))
