"""Can a file that somebody else made do harm? Thousands of hostile ones are tried.

    python -m tests.stress.fuzz_inputs --count 20000 --seed 1

Every kind of input of `hostile_inputs.py` goes through the commands that read it. Each must end
with a result (code 0) or a clear message (code 2) within 10 s of processor time and twice the
input plus 500 MB of memory, and must neither run a program, nor open a connection, nor touch a file
outside of its output. The commands run in processes that are forked from one warm process, under a
hook that hears of every file that Python opens. Exit code 1 if anything else happened; case N of a
seed is the same on every machine.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from fastmix_mega.cli.main import main as fastmix
from fastmix_mega.errors import UserError
from tests.data_tools.chats import byte_tokenizer, conversation, write_rows
from tests.stress.fuzz_command import run_cases
from tests.stress.hostile_inputs import KINDS, Attempt, World
from tests.tiny import tiny_settings, write_corpora

SECONDS, HANGS, WAITS = 10.0, 40.0, 600.0
"""Of processor time that an attempt may take, and after which a case is killed; of waiting."""
MEMORY = 500 << 20
"""Bytes beside twice the input."""
CEILING = 6 << 30
"""Bytes of address space that no case gets beyond, for the machine's sake."""
CASES_OF_A_WORKER = 300
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.rename", "os.link")
PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
NAMED = ("127.0.0.1", 1)
"""Of the URLs in the files: what a mixture names may be asked for (docs/trust.md)."""


def build(folder: Path) -> World:
    """The valid inputs."""
    corpora = folder / "corpora"
    corpora.mkdir()
    write_corpora(corpora)
    shutil.copy(corpora / "tokenizer.model", folder)
    settings = tiny_settings(corpora, folder / "run")
    settings["checkpoint"] = {"every": 12, "keep": 1, "final": True}
    settings["search"] |= {"answer": "surface"}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    _in_a_process(lambda: fastmix(["search", str(folder / "config.yaml"), "--nproc", "1"]))
    run = str(folder / "run")
    assert fastmix(["export", run, "--to", "huggingface", "-o", str(folder / "model")]) == 0
    (folder / "chat").mkdir()
    byte_tokenizer(folder / "chat")
    write_rows(folder / "chats.jsonl", [conversation(number) for number in range(3)])
    rows = [{"text": f"a word and {number} more"} for number in range(30)]
    write_rows(folder / "text.jsonl", rows)
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "text.parquet")
    (folder / "blend.weights").write_text("{alpha: 0.4, beta: 0.6}\n")
    return World(folder, settings, _blends(folder, run))


def _blends(folder: Path, run: str) -> dict[str, str]:
    """The mixture in every format."""
    from fastmix_mega.export.formats import FORMATS

    found = {"weights": "{alpha: 0.4, beta: 0.6}\n", "row-weights": "{alpha: 0.4, beta: 0.6}\n"}
    for name, form in FORMATS.items():
        path = folder / f"blend.{name}"
        words = ["export", run, "--to", name, "-o", str(path), "--budget-tokens", "1M"]
        for more in ([], ["--paths", "data/{name}"]):
            if form.write and not path.exists() and fastmix([*words, *more]) == 0:
                found[name] = path.read_text()
    return found


def _in_a_process(work: Any) -> None:
    """In a fork: a run leaves the variables and the groups of its launcher behind."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"building the valid inputs ended with {status}")


class Watch:
    """Hears of what Python does to files, programs and connections."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.seen: list[str] = []
        self.on = False

    def __call__(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in PROGRAMS and given[1:] != (NAMED,):
            self.seen.append(f"{event} {given[:2]}")
        elif event == "open" and isinstance(given[2], int) and given[2] & WRITES:
            self._wrote(event, given[0])
        elif event in CHANGES:
            self._wrote(event, given[0])
            if event in ("os.rename", "os.link"):
                self._wrote(event, given[1])

    def _wrote(self, event: str, path: Any) -> None:
        if isinstance(path, int):
            return
        path = os.path.abspath(os.fsdecode(path))
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        followed = os.path.realpath(path) if event == "open" else real
        if not all(each.startswith(self.allowed) for each in (real, followed)):
            self.seen.append(f"{event} {path}")


def snapshot(*folders: Path) -> dict[str, tuple[int, ...]]:
    """What every file below is, without its content."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            status = path.lstat()
            found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)
    return found


def attempt(given: Attempt) -> tuple[int, str]:
    """The exit code and all that was said."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            done = given() if callable(given) else fastmix(list(given))
            code = done if isinstance(done, int) else 0
        except UserError as error:
            code = 2
            print(error)
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
    return code, said.buffer.getvalue().decode()


def judge(given: Attempt, code: int, said: str) -> str | None:
    """What is wrong with an end, if anything; 1 is how two verbs say that they found something."""
    looked_for = () if callable(given) else (1,) * (given[0] in ("audit", "watch"))
    if code not in (0, 2, *looked_for):
        return f"exit code {code}: {said[-500:]}"
    if code == 2 and not said.strip():
        return "refused without a message"
    if "Traceback" in said:
        return f"a stack trace: {said[-1500:]}"
    if code == 2 and len(said) > 20_000:
        return f"a message of {len(said):,} characters"
    return None


def run_case(world: World, kind: str, dice: random.Random, here: Path, watch: Watch) -> str:
    """One case; returns its outcome. AssertionError for what must not be."""
    for name in ("in", "out", "outside"):
        (here / name).mkdir(parents=True)
    (here / "outside" / "kept").write_text("kept\n")
    attempts = KINDS[kind](world, dice, here)
    size = sum(p.lstat().st_blocks * 512 for p in here.rglob("*") if not p.is_symlink())
    kept = [here / "in", here / "outside"]
    outcome = "valid"
    watch.allowed = (f"{here}/out/", f"{here}/out", "/dev/null", "/tmp/fastmix-scratch")
    os.chdir(here / "in")
    for given in attempts:
        before = snapshot(*kept)
        Path("/proc/self/clear_refs").write_text("5")
        held, used = _memory("VmRSS"), time.process_time()
        watch.seen, watch.on = [], True
        try:
            code, said = attempt(given)
        except Exception as error:
            raise AssertionError(f"{_shown(given)}\n{traceback.format_exc()}") from error
        finally:
            watch.on = False
        seconds, memory = time.process_time() - used, _memory("VmHWM") - held
        wrong = judge(given, code, said) or next(iter(watch.seen), None)
        if snapshot(*kept) != before:
            wrong = "a file beside the output has changed"
        if seconds > SECONDS:
            wrong = f"{seconds:.1f} s of processor time"
        if memory > 2 * size + MEMORY:
            wrong = f"{memory / 2**20:,.0f} MB of memory for {size / 2**20:.1f} MB of input"
        if wrong is not None:
            raise AssertionError(f"{_shown(given)}\n{wrong}")
        outcome = "refused" if code == 2 else outcome
    return outcome


def _shown(given: Attempt) -> str:
    return getattr(given, "__name__", "") or " ".join(given)


def _memory(name: str) -> int:
    """Bytes, of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def work(world: World, seed: int, folder: Path, orders: int, answers: int) -> None:
    """A worker: takes numbers of cases, answers with a line of JSON each."""
    watch = Watch()
    sys.addaudithook(watch)
    sys.dont_write_bytecode = True
    os.environ |= {"HOME": str(folder / "home"), "FASTMIX_CACHE": str(folder / "case/out/cache")}
    os.environ["WANDB_MODE"] = "disabled"
    tempfile.tempdir = str(folder / "case" / "out")
    resource.setrlimit(resource.RLIMIT_AS, (CEILING + _memory("VmSize"),) * 2)
    with os.fdopen(orders, "rb") as given, os.fdopen(answers, "wb", buffering=0) as out:
        for line in given:
            here = folder / "case"
            kind, dice = kind_of(seed, int(line))
            wrong, started = None, time.process_time()
            try:
                outcome = run_case(world, kind, dice, here, watch)
            except AssertionError as error:
                outcome, wrong = "wrong", str(error)
            os.chdir(folder)
            shutil.rmtree(here, ignore_errors=True)
            seconds = time.process_time() - started
            answer = {"kind": kind, "outcome": outcome, "wrong": wrong, "seconds": seconds}
            out.write(json.dumps(answer).encode() + b"\n")


def kind_of(seed: int, number: int) -> tuple[str, random.Random]:
    """A case's kind, and what its content is drawn from."""
    dice = random.Random(f"{seed}/{number}")
    return dice.choice(list(KINDS)), dice


class Worker:
    """A forked process that does cases."""

    def __init__(self, world: World, seed: int, folder: Path) -> None:
        order_end, self._orders = os.pipe()
        self._answers, answer_end = os.pipe()
        self._reader: BinaryIO = os.fdopen(self._answers, "rb", buffering=0)
        self._seed = seed
        self.done = 0
        self._process = os.fork()
        if self._process == 0:
            try:
                os.close(self._orders)
                work(world, seed, folder, order_end, answer_end)
            finally:
                os._exit(0)
        os.close(order_end)
        os.close(answer_end)

    def case(self, number: int) -> dict[str, Any]:
        """The worker's answer; a worker that dies or hangs answers nothing more."""
        self.done += 1
        os.write(self._orders, f"{number}\n".encode())
        started, before = time.monotonic(), self._processor_time()
        ready: list[int] = []
        while not ready and time.monotonic() - started < WAITS:
            ready, _, _ = select.select([self._answers], [], [], 1.0)
            if not ready and self._processor_time() - before > HANGS:
                break
        line = self._reader.readline() if ready else b""
        if line:
            return dict(json.loads(line))
        why = "its process died" if ready else "it does not end"
        kind = kind_of(self._seed, number)[0]
        return {"kind": kind, "outcome": "died", "wrong": f"{why}: {self.end()}"}

    def _processor_time(self) -> float:
        """Seconds."""
        fields = Path(f"/proc/{self._process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> str:
        """Kill it; returns how it ended."""
        with contextlib.suppress(ProcessLookupError):
            time.sleep(0.2)
            done, status = os.waitpid(self._process, os.WNOHANG)
            if not done:
                os.kill(self._process, signal.SIGKILL)
                _, status = os.waitpid(self._process, 0)
            os.close(self._orders)
            self._reader.close()
            return f"status {status}"
        return "gone"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def fuzz(count: int, seed: int, directory: Path, first: int = 0) -> list[str]:
    """Returns what went wrong, a text a case."""
    from fastmix_mega.cli.imports import import_libraries

    import_libraries()
    (directory / "valid").mkdir()
    with _quiet():
        world = build(directory / "valid")
    outcomes, spent, wrong = Counter[str](), Counter[str](), []
    worker: Worker | None = None
    for number in range(first, first + count):
        if worker is None:
            worker = Worker(world, seed, directory)
        answer = worker.case(number)
        outcomes[f"{answer['kind']}: {answer['outcome']}"] += 1
        spent[answer["kind"]] += answer.get("seconds", 0.0)
        if answer["wrong"] is not None:
            wrong.append(f"case {number} of seed {seed} ({answer['kind']}): {answer['wrong']}")
            print(wrong[-1], flush=True)
        if (number + 1 - first) % 500 == 0:
            print(f"{number + 1 - first} cases, {len(wrong)} wrong", flush=True)
        died = answer["outcome"] == "died"
        if died or worker.done >= CASES_OF_A_WORKER:
            if not died:
                worker.end()
            shutil.rmtree(directory / "case", ignore_errors=True)
            worker = None
    if worker is not None:
        worker.end()
    print(f"{count} cases (seed {seed}): {dict(sorted(outcomes.items()))}")
    print("processor seconds:", {kind: round(seconds) for kind, seconds in spent.most_common()})
    return wrong


if __name__ == "__main__":
    sys.exit(run_cases(fuzz, __doc__ or "", 20_000))
