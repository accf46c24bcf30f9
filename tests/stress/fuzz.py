"""Does any configuration or mixture file end in a stack trace? Thousands of spoiled ones are tried.

    python -m tests.stress.fuzz --count 10000 --seed 1 --runs 20

A valid configuration (and mixture.json) is spoiled in one to four places: keys renamed, removed or
moved, values replaced by odd ones, bytes changed, overrides added. Each must be refused with a
message, or pass `fastmix check`. Some of those that pass and are small are run to their end, too.
Exit code 1 if anything else happened; case N of a seed is the same on every machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fastmix_mega.config.schema import Config
from fastmix_mega.configuration import load_config
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.planning.check import check
from tests.launch import clean_environment
from tests.tiny import SOURCES, tiny_settings, write_corpora

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**63, 10**30, -(2**63), 0.0, -0.0, 0.5, 1.5),
    *(1e308, -1e308, 1e-320, float("nan"), float("inf"), "", " ", "a", "uniform", "1e5", "nan"),
    *("\0", "\n", "ä€😀", "..", "../../etc/passwd", "/", "/dev/null", "/dev/full", "~", "%s{0}"),
    *("a" * 300, "a" * 5000, "x/" * 3000, [], {}, [[]], [None], {"": 1}, {"a": {"b": [1]}}),
    *("head", "all", "body", "(", "[a", "hooks:", "hooks:head", "*", ".*", "tiny", "1M", "demo"),
    *("fp32", "bf16", "proportional", "fastmix", "reference", "selective", "full", "wsd"),
)
EXTRA_SECTIONS: dict[str, Any] = {
    "parallel": {"tensor": 1, "pipeline": 1, "context": 1, "zero": 1, "timeout_minutes": 30.0},
    "checkpoint": {"every": 5, "keep": 2, "keep_every": 0, "keep_best": False},
    "guards": {"max_skipped": 10, "spike": 5.0, "hang_minutes": 15.0},
    "precision": "fp32",
    "method": "fastmix",
}
MAX_RUN_TOKENS, MAX_RUN_PARAMETERS = 100_000, 3_000_000


@dataclass(frozen=True)
class Case:
    """One spoiled input, as files on disk."""

    config: Path
    overrides: list[str]
    mode: str
    processes: int


def places(node: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside plain data."""
    if isinstance(node, dict):
        keys: list[Any] = list(node)
    elif isinstance(node, list):
        keys = list(range(len(node)))
    else:
        return []
    return [(node, key) for key in keys] + [pair for key in keys for pair in places(node[key])]


def spoil(content: Any, dice: random.Random) -> None:
    """Change plain data in one place."""
    found = places(content)
    if not found:
        return
    container, key = dice.choice(found)
    change = dice.randrange(7)
    if change == 0:
        del container[key]
    elif change == 1 and isinstance(container, dict):
        letters = list(str(key))
        letters.insert(dice.randint(0, len(letters)), dice.choice("aeé _.0\0"))
        container["".join(letters)] = container.pop(key)
    elif change == 2 and isinstance(container[key], int | float):
        factor = dice.choice((-1, 0.1, 0.5, 2, 3, 10, 1000))
        value = container[key] * factor
        whole = dice.random() < 0.7 and math.isfinite(value)
        container[key] = int(value) if whole else value
    elif change == 3:
        other, other_key = dice.choice(found)
        container[key] = copy.deepcopy(other[other_key])
    elif change == 4:
        container[key] = [container[key]]
    else:
        container[key] = copy.deepcopy(dice.choice(ODD_VALUES))


def spoil_bytes(content: bytes, dice: random.Random) -> bytes:
    """Change a file's bytes in one place."""
    start = dice.randint(0, len(content))
    end = min(len(content), start + dice.choice((0, 1, 1, 3, 40)))
    new = bytes(dice.choices(b"\0\t\n !&*-:?{}[],\"'%@`\xff\xc3az09.", k=dice.choice((0, 1, 1, 5))))
    return (
        content[: dice.randint(0, start)]
        if dice.random() < 0.1
        else (content[:start] + new + content[end:])
    )


def mixture_content(settings: dict[str, Any]) -> dict[str, Any]:
    weights = (0.4, 0.3, 0.2, 0.1)
    return {
        "schema": "fastmix-mixture/1",
        "unit": "tokens",
        "sources": [
            {"name": name, "weight": weight, "stderr": 0.01, "tokens": 5100}
            for name, weight in zip(SOURCES, weights, strict=True)
        ],
        "targets": settings["targets"],
        "search": {"steps": 24, "seed": 7},
    }


def make_case(number: int, seed: int, corpora: Path, directory: Path) -> Case:
    """Case `number` of a seed, written into `directory`."""
    dice = random.Random(f"{seed}/{number}")
    settings = tiny_settings(corpora, directory / "run") | copy.deepcopy(EXTRA_SECTIONS)
    mode = dice.choice(("search", "search", "train"))
    kind = dice.choice(("config", "config", "bytes", "overrides", "mixture", "weights"))
    changes = dice.choice((1, 1, 2, 4))
    mixture: Any = mixture_content(settings)
    where = directory / "mixture.json"
    if kind in ("mixture", "weights"):
        given: Any = str(where)
        if kind == "weights":
            given = {source["name"]: source["weight"] for source in mixture["sources"]}
            for _ in range(changes):
                spoil(given, dice)
        elif dice.random() < 0.8:
            for _ in range(changes):
                spoil(mixture, dice)
        settings["mixture"] = given
        settings["search"]["initial"] = given
    if kind == "config":
        for _ in range(changes):
            spoil(settings, dice)
    text = yaml.safe_dump(settings, allow_unicode=dice.random() < 0.5).encode()
    plain = json.dumps(mixture).encode()
    if kind == "bytes":
        for _ in range(changes):
            text = spoil_bytes(text, dice)
    elif kind == "mixture" and dice.random() < 0.4:
        plain = spoil_bytes(plain, dice)
    where.write_bytes(plain)
    config = directory / "config.yaml"
    config.write_bytes(text)
    overrides = []
    if kind == "overrides":
        for _ in range(changes):
            container, key = dice.choice(places(settings))
            odd = dice.choice(ODD_VALUES)
            path = dice.choice((str(key), f"train.{key}", f"sources.0.{key}", f"search.{key}", ""))
            overrides.append(f"{path}={odd}" if dice.random() < 0.9 else f"{path}{odd}")
            del container
    return Case(config, overrides, mode, dice.choice((1, 1, 2, 4)))


def judge(case: Case) -> tuple[str, Config | None]:
    """`refused`, `mistakes` or `valid`; any other exception is what the fuzzing looks for."""
    config: Config | None = None
    try:
        config = load_config(case.config, case.overrides)
        findings = check(config, case.processes, case.mode)
    except UserError as error:
        messages, outcome = [str(error)], "refused"
    else:
        messages, outcome = findings.mistakes, "mistakes"
    if not messages:
        return "valid", config
    if not all(message.strip() for message in messages):
        raise ValueError("a mistake without a message")
    return outcome, None
    return "valid", config


def is_small(config: Config, processes: int) -> bool:
    train = config.train
    tokens = train.steps * train.global_batch * train.seq_length
    target = config.search.target_batch * train.seq_length * train.steps // config.search.every
    shape = resolve_shape(config.model, Tokenizer(config.tokenizer).vocab_size)
    return (
        tokens + target < MAX_RUN_TOKENS
        and shape.parameters < MAX_RUN_PARAMETERS
        and processes <= 2
        and train.micro_batch * train.seq_length < 10_000
        and config.log.wandb != "online"
    )


def run(case: Case) -> str | None:
    """Run a valid case to its end; returns what went wrong."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fastmix_mega", case.mode, str(case.config)),
            *("--nproc", str(case.processes), *case.overrides),
        ],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    if done.returncode not in (0, 1, 2) or "Traceback" in done.stdout:
        return f"exit code {done.returncode}\n{done.stdout[-2000:]}"
    return None


def fuzz(count: int, seed: int, runs: int, directory: Path, first: int = 0) -> list[str]:
    """Returns what went wrong, a text a case."""
    corpora = directory / "corpora"
    corpora.mkdir()
    write_corpora(corpora)
    # Relative paths of spoiled cases must not lead into the repository.
    before = Path.cwd()
    os.chdir(directory)
    outcomes, wrong = Counter[str](), []
    try:
        for number in range(first, first + count):
            here = directory / "case"
            here.mkdir(exist_ok=True)
            case = make_case(number, seed, corpora, here)
            try:
                outcome, config = judge(case)
            except Exception:
                outcome, config = "stack trace", None
                wrong.append(f"case {number} of seed {seed}:\n{traceback.format_exc()}")
                print(wrong[-1], flush=True)
            outcomes[outcome] += 1
            if config is not None and outcomes["run"] < runs and is_small(config, case.processes):
                outcomes["run"] += 1
                failure = run(case)
                if failure is not None:
                    wrong.append(f"case {number} of seed {seed}, run: {failure}")
                    print(wrong[-1], flush=True)
    finally:
        os.chdir(before)
    print(f"{count} cases (seed {seed}): {dict(outcomes)}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="start with this case")
    parser.add_argument("--runs", type=int, default=20, help="how many valid ones are run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastmix-fuzz-") as directory:
        wrong = fuzz(options.count, options.seed, options.runs, Path(directory), options.first)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
