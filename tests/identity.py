"""The cases of tests/identity.sh: run each with two checkouts' code, and compare every number.

Each checkout's runs are forked by its own `tests.ranks`, spoken to in its JSON lines, so that this
module knows no other name of theirs than the command's and the files'.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.tiny import SOURCES, write_conversations, write_corpora

COMPARED = (
    "history.jsonl",
    "metrics.jsonl",
    "events.jsonl",
    "mixture.json",
    "shares.json",
    "swarm.json",
)
"""Files of a run folder, and of the run folders within it."""

IGNORED = {"seconds", "tokens_per_second", "ranks", "code_sha256", "config_sha256", "versions"}
"""Keys whose values may differ: times, and what says which code and which configuration it was."""

PROSE = {"warnings", "text", "notes"}
"""Keys with sentences, which may be worded anew: their numbers are compared."""

RENAMED_KEYS: dict[str, str] = {}
"""Old key -> new key, in any of the files. Empty it when both checkouts use the new names."""

RENAMED_WORDS: dict[str, str] = {}
"""Old text -> new text, for values that are one of the program's own words."""

STOPPED = 75


@dataclass(frozen=True)
class Step:
    """One start of the command."""

    verb: str
    settings: dict[str, Any]
    processes: int = 1
    folder: str = "run"
    """Of the run, within the case's; settings may name others' as {runs}/FOLDER."""
    fault: str = ""
    """As in tests/faulty.py."""
    stop_after: int = 0
    """Lines of metrics.jsonl after which the stop file is written; 0 for none."""
    expect: int = 0


Case = Sequence[Step]


def merged(base: dict[str, Any], *changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with sections updated key by key, and everything else replaced."""
    result = dict(base)
    for change in changes:
        for key, value in change.items():
            old = result.get(key)
            both = isinstance(old, dict) and isinstance(value, dict)
            result[key] = old | value if both else value
    return result


def make_corpora(directory: Path) -> None:
    """Token files that both checkouts read."""
    directory.mkdir()
    write_corpora(directory)
    write_conversations(directory)
    # Earlier versions look for manifests under this name.
    for path in directory.rglob("*.manifest.json"):
        shutil.copy(path, path.with_name(path.name.replace(".manifest.json", ".json")))


def settings_over(corpora: Path, folder: str = "") -> dict[str, Any]:
    """A small configuration without run_dir, in keys that both checkouts know.

    It is not `tests.tiny`'s, which follows the newest schema.
    """

    def entry(name: str, file: str) -> dict[str, Any]:
        return {"name": name, "prefix": str(corpora / folder / file)}

    return {
        "seed": 7,
        "tokenizer": str(corpora / "tokenizer.model"),
        "sources": [entry(name, name) for name in SOURCES],
        "targets": [entry("near", "target") | {"weight": 2}, entry("far", "other_target")],
        "model": {"preset": "tiny"},
        "train": {
            "steps": 24,
            "global_batch": 8,
            "micro_batch": 2,
            "seq_length": 32 if folder else 16,
            "schedule": {"warmup": 3, "peak": 1e-3},
        },
        "search": {
            "every": 4,
            "warmup": 4,
            "target_batch": 6,
            "score_tokens": 1.0,
            "initial": "uniform",
        },
        "log": {"every": 1, "wandb": "disabled"},
    }


def cases(corpora: Path) -> dict[str, Case]:
    """All cases by name."""
    text, chats = settings_over(corpora), settings_over(corpora, "chat")
    longer = {"train": {"steps": 40}}
    resumable = {"checkpoint": {"every": 5}}
    quiz = {"targets": [{"name": "quiz", "prefix": str(corpora / "quiz")}]}
    held_out = [{"name": "judge", "prefix": str(corpora / "other_target")}]
    by_default = {key: value for key, value in text.items() if key != "search"}
    three = text | {"sources": text["sources"][:3]}
    limits = {
        "budget_tokens": 60_000,
        "max_epochs": 4,
        "sources": {"alpha": {"min": 0.3}, "delta": {"max_epochs": 2}},
        "groups": {"middle": {"sources": ["beta", "gamma"], "max": 0.5}},
        "prior": {"mixture": "proportional", "strength": 0.2},
    }
    stages = {
        "mixture": {"alpha": 0.4, "beta": 0.3, "gamma": 0.2, "delta": 0.1},
        "stages": [
            {"name": "middle", "mixture": "proportional", "from_tokens": 1000},
            {"name": "end", "mixture": "uniform", "from_tokens": 2304},
        ],
        "evaluation": {"every": 6, "sequences": 8, "sets": held_out},
    }
    regmix = {
        "method": "regmix",
        "train": {"steps": 12},
        "regmix": {"runs": 4, "families": ["linear", "log"], "candidates": 2000, "top": 16},
    }
    reuse = {"reuse": {"mixture": "{runs}/before"}, "initial": "auto"}

    def search(*changes: dict[str, Any], base: dict[str, Any] = text, **options: Any) -> Case:
        return [Step("search", merged(base, *changes), **options)]

    def resumed(*changes: dict[str, Any], step: int = 16, processes: int = 1) -> Case:
        """Killed in its step-th training step, started again."""
        settings = merged(text, resumable, *changes)
        killed = Step("search", settings, processes, fault=f"kill-step:all:{step}", expect=137)
        return [killed, Step("search", settings, processes)]

    found: dict[str, Case] = {
        "bigram": search({"search": {"every": 4}}, longer, base=by_default, processes=2),
        "body": search({"search": {"scores": "body"}}, processes=2),
        "regex": search({"search": {"scores": r"layers\.0\.", "precondition": False}}),
        "minimax": search({"search": {"objective": "minimax", "target_scores": 1.0}}, longer),
        "sampled": search({"search": {"exploration": 0.0, "prior_strength": 0.2, "decay": 0.5}}),
        "constraints": search({"search": {"constraints": limits, "step": 0.8}}, processes=2),
        "reuse": [Step("search", three, folder="before"), *search({"search": reuse})],
        "converged": search({"search": {"every": 1, "stop_when_converged": 0.5}}, longer),
        "skipped": search(fault="nan:all:20"),
        "collapsed": search({"search": {"step": 40.0, "prior_strength": 0.0}}, longer),
        "sft": search(base=chats, processes=2),
        "choice": search(quiz),
        "tensor": search({"parallel": {"tensor": 2}}, processes=2),
        "pipeline": search({"parallel": {"pipeline": 2}}, processes=2),
        "train": [Step("train", merged(text, stages), 2)],
        "train_sft": [Step("train", merged(chats, {"mixture": "proportional"}))],
        "killed": resumed(processes=2),
        "killed_train": [
            Step("train", merged(text, stages, resumable), fault="kill-step:all:19", expect=137),
            Step("train", merged(text, stages, resumable)),
        ],
        "stopped": [
            Step("search", merged(text, longer), 2, stop_after=12, expect=STOPPED),
            Step("search", merged(text, longer), 2),
        ],
    }
    for method in ("reference", "doremi", "doge", "odm", "aioli"):
        section = {"aioli": {"free_steps": 4}} if method == "aioli" else {}
        found[method] = search({"method": method}, section, longer, processes=2)
        step = 60 if method == "doremi" else 26  # DoReMi's second run: the first has 40 steps.
        found[f"killed_{method}"] = resumed({"method": method}, section, longer, step=step)
    no_targets = {"method": "doge", "targets": []}
    found["doge_sources"] = search(no_targets)
    found["regmix"] = search(regmix, processes=2)
    for method in ("ngram", "uniform", "proportional"):
        found[method] = search({"method": method})
    return found


class Checkout:
    """One checkout's code: a process of its own that forks the runs.

    Args:
        name: `old` or `new`.
        root: of the checkout.
        runs: where its run folders go.
        overrides: `key.path=value` for all of its runs.
    """

    def __init__(self, name: str, root: Path, runs: Path, overrides: Sequence[str]) -> None:
        self.name = name
        self.root = root
        self.runs = runs
        self.overrides = list(overrides)
        runs.mkdir(parents=True)
        drop = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
        kept = {key: text for key, text in os.environ.items() if key not in (*drop, "MASTER_PORT")}
        self.environment = kept | {
            "PYTHONPATH": str(root),
            "OMP_NUM_THREADS": "1",
            "WANDB_MODE": "offline",
        }
        self._require_own_code()
        self._process: Any = subprocess.Popen(
            [sys.executable, "-m", "tests.ranks"],
            cwd=root,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(runs / "ranks.log").open("w"),
            text=True,
        )

    def _require_own_code(self) -> None:
        """An installed copy would otherwise be compared with itself."""
        code = "import fastmix_mega; print(fastmix_mega.__file__)"
        found = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()
        print(f"{self.name}: {found}", flush=True)
        if Path(found).resolve() != (self.root / "fastmix_mega" / "__init__.py").resolve():
            raise SystemExit(f"{self.root} does not run its own code, but {found}")

    def run_case(self, name: str, case: Case) -> str:
        """Make the case's run folders; returns what went wrong, or nothing."""
        directory = self.runs / name
        directory.mkdir()
        for number, step in enumerate(case, 1):
            settings = step.settings | {"run_dir": str(directory / step.folder)}
            written = yaml.safe_dump(settings).replace("{runs}", str(directory))
            config, log = directory / f"{number}.yaml", directory / f"{number}.log"
            config.write_text(written)
            code = self._start(step, config, log)
            if code != step.expect:
                return f"exit code {code} instead of {step.expect}, see {log}"
        return ""

    def _start(self, step: Step, config: Path, log: Path) -> int:
        request = {
            "arguments": (step.verb, str(config), *self.overrides),
            "processes": step.processes,
            "log": str(log),
            "fault": step.fault,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        if step.stop_after:
            run_dir = config.parent / step.folder
            threading.Thread(target=_ask_to_stop, args=(run_dir, step.stop_after)).start()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"tests.ranks of {self.root} has ended, see {self.runs}/ranks.log")
        return int(answer)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def _ask_to_stop(run_dir: Path, lines: int) -> None:
    """Write the stop file when metrics.jsonl has so many lines."""
    metrics, end = run_dir / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < end:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= lines:
            (run_dir / "stop").touch()
            return
        time.sleep(0.01)


@dataclass
class Comparison:
    """Two folders' files, value by value."""

    roots: tuple[str, str]
    """What paths begin with, there and here."""
    files: int = 0
    numbers: int = 0
    differences: list[str] = field(default_factory=list)

    def folders(self, old: Path, new: Path) -> None:
        there, here = _compared_files(old), _compared_files(new)
        for path in sorted(there ^ here):
            self._differ(str(path), "only in the " + ("old" if path in there else "new") + " runs")
        for path in sorted(there & here):
            self.files += 1
            before_rows, rows = _rows(old / path), _rows(new / path)
            if len(before_rows) != len(rows):
                self._differ(str(path), f"{len(before_rows)} lines -> {len(rows)} lines")
            for number, (before, now) in enumerate(zip(before_rows, rows, strict=False), 1):
                where = f"{path}:{number}" if path.suffix == ".jsonl" else str(path)
                self.values(where, before, now)

    def values(self, where: str, old: Any, new: Any, prose: bool = False) -> None:
        if isinstance(old, dict) and isinstance(new, dict):
            self._mappings(where, old, new)
        elif isinstance(old, list) and isinstance(new, list):
            if len(old) != len(new):
                self._differ(where, f"{len(old)} entries -> {len(new)} entries")
            for index, (before, now) in enumerate(zip(old, new, strict=False)):
                self.values(f"{where}[{index}]", before, now, prose)
        elif isinstance(old, str) and isinstance(new, str):
            self._texts(where, old, new, prose)
        else:
            self.numbers += isinstance(old, int | float)
            # JSON keeps every bit of a double, and 1 is not 1.0.
            if type(old) is not type(new) or old != new:
                self._differ(where, f"{old!r} -> {new!r}")

    def _mappings(self, where: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        old = {RENAMED_KEYS.get(key, key): value for key, value in old.items()}
        for key in old | new:
            inner = f"{where} {key}"
            if key in IGNORED:
                continue
            if key not in old or key not in new:
                self._differ(inner, "only in the " + ("old" if key in old else "new") + " file")
            else:
                self.values(inner, old[key], new[key], prose=key in PROSE)

    def _texts(self, where: str, old: str, new: str, prose: bool) -> None:
        if prose:
            old, new = (" ".join(re.findall(r"\d[\d.,]*%?", text)) for text in (old, new))
        old = RENAMED_WORDS.get(old, old).replace(self.roots[0], "RUNS")
        new = new.replace(self.roots[1], "RUNS")
        if old != new:
            self._differ(where, f"{old!r} -> {new!r}")

    def _differ(self, where: str, what: str) -> None:
        self.differences.append(f"{where}: {what}")


def _compared_files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for name in COMPARED for path in folder.rglob(name)}


def _rows(path: Path) -> list[Any]:
    text = path.read_text()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return [json.loads(text)]


def run_all(old: Checkout, new: Checkout, wanted: dict[str, Case]) -> Iterator[bool]:
    """Run and compare one case after another; yields whether each is identical."""
    both = (old, new)
    with ThreadPoolExecutor(2) as pool:
        for name, case in wanted.items():
            wrong = list(pool.map(Checkout.run_case, both, (name, name), (case, case)))
            if any(wrong):
                told = [
                    f"{each.name}: {text}" for each, text in zip(both, wrong, strict=True) if text
                ]
                print(f"{name:16} FAILED     {'; '.join(told)}", flush=True)
                yield False
                continue
            compared = Comparison((str(old.runs), str(new.runs)))
            compared.folders(old.runs / name, new.runs / name)
            if compared.differences:
                first, more = compared.differences[0], len(compared.differences) - 1
                print(f"{name:16} DIFFERENT  {first} (and {more} more)", flush=True)
            else:
                size = f"{compared.numbers:,} numbers in {compared.files} files"
                print(f"{name:16} identical  {size}", flush=True)
            yield not compared.differences


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/identity.sh", description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, metavar="CHECKOUT", help="old and new")
    parser.add_argument("--only", nargs="+", action="extend", metavar="CASE", help="not all cases")
    for name in ("old", "new"):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="key.path=value",
            help=f"change the configuration of all runs of the {name} checkout",
        )
    parser.add_argument("--list", action="store_true", help="the cases' names")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for all runs")
    options = parser.parse_args()
    known = cases(Path("corpora"))
    if options.list:
        print("\n".join(known))
        return 0
    if len(options.checkouts) != 2:
        parser.error("name two checkouts, the old and the new")
    unknown = set(options.only or ()) - set(known)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; --list shows all")
    if options.keep is None:
        work = Path(tempfile.mkdtemp(prefix="fastmix-identity-"))
    else:
        work = options.keep.resolve()
        work.mkdir(parents=True)
    corpora = work / "corpora"
    make_corpora(corpora)
    wanted = {
        name: case
        for name, case in cases(corpora).items()
        if not options.only or name in options.only
    }
    roots = [root.resolve() for root in options.checkouts]
    both = (
        Checkout("old", roots[0], work / "old", options.old),
        Checkout("new", roots[1], work / "new", options.new),
    )
    try:
        results = list(run_all(*both, wanted))
    finally:
        for checkout in both:
            checkout.close()
    failed = results.count(False)
    if failed or options.keep is not None:
        print(f"{failed} of {len(results)} cases differ; the runs are in {work}")
    else:
        print(f"all {len(results)} cases are identical")
        shutil.rmtree(work)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
