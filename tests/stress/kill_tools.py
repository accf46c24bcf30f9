"""Is every data tool, killed at a random moment and started again, the same byte for byte?

    python -m tests.stress.kill_tools --kills 100 --seed 1
    python -m tests.stress.kill_tools --kills 100 --only preprocess_sft

Every tool is run once without a kill. Then, for every kill, it is started in an empty folder and
killed with its workers (SIGKILL) at a random moment of the time that it takes. What then stands
under a final name must be whole already, or be refused by its reader. The same command is given
again, and the folder must be byte for byte that of the run without a kill, with nothing left over.
The tools are forked from this warm process. Exit code 1 if anything else happened.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.data_tools.chats import conversation, sentence, sentencepiece_model, write_rows
from tests.stress.campaign_command import Range, run_campaign

GROWS = "made_by_fastmix.json"
"""The list of what a tool is about to write: whole at any moment, but not always the last one."""
PREPARED = """\
vocab_size: 300
sources:
  - {name: tales, kind: files, root: tales, patterns: ["*.txt"]}
  - {name: notes, kind: files, root: notes, patterns: ["*.txt"]}
targets:
  - {name: goal, kind: files, root: goal, patterns: ["*.txt"]}
"""


@dataclass(frozen=True)
class Tool:
    """A command whose inputs lie in `in/`, and that writes into `out/`."""

    module: str
    """Of `data_tools`."""
    words: str


TOKENIZER = "--tokenizer in/t.model"
TOOLS = {
    "train_tokenizer": Tool(
        "train_tokenizer", "in/a.jsonl in/b.jsonl --vocab-size 300 --output out/t.model"
    ),
    "merge": Tool("merge", "in/one in/two --output-prefix out/whole"),
    "split": Tool("split", "in/two --valid 0.2 --test 0.1 --output-prefix out/part"),
    "dedup": Tool("dedup", "--sources in/a.jsonl --targets in/few.jsonl --output out/a.jsonl.gz"),
    "prepare": Tool("prepare", "in/corpora.yaml --output out"),
    "preprocess": Tool(
        "preprocess", f"in/a.jsonl in/b.jsonl --workers 2 {TOKENIZER} --output-prefix out/text"
    ),
    "preprocess_sft": Tool(
        "preprocess", f"in/chats.jsonl --mode sft --workers 2 {TOKENIZER} --output-prefix out/chat"
    ),
    "preprocess_choices": Tool(
        "preprocess_choices", f"in/quiz.jsonl {TOKENIZER} --output-prefix out/quiz"
    ),
}


def warm_up() -> None:
    """Import what the tools need, on one thread, so that forks are safe."""
    os.environ |= {"OMP_NUM_THREADS": "1"}
    for tool in TOOLS.values():
        importlib.import_module(f"data_tools.{tool.module}")


def write_inputs(folder: Path) -> None:
    """All tools' inputs, some of which are other tools' results."""
    for name in ("in", "out"):
        (folder / name).mkdir()
    given = folder / "in"
    sentencepiece_model(given)
    for name, first, count in (("a", 0, 6000), ("b", 50_000, 4000), ("few", 0, 200)):
        rows = [{"text": sentence(first + number, 40)} for number in range(count)]
        write_rows(given / f"{name}.jsonl", rows)
    write_rows(given / "chats.jsonl", [conversation(number) for number in range(4000)])
    quiz = [
        {"question": sentence(n), "choices": [sentence(n + 1), sentence(n + 2)], "answer": n % 2}
        for n in range(3000)
    ]
    write_rows(given / "quiz.jsonl", quiz)
    for name, first in (("tales", 0), ("notes", 1000), ("goal", 2000)):
        (given / name).mkdir()
        for number in range(60):
            text = "\n".join(sentence(first + number + 7 * line, 30) for line in range(20))
            (given / name / f"{number:02}.txt").write_text(text)
    (given / "corpora.yaml").write_text(PREPARED)
    for name, source in (("one", "b"), ("two", "a")):
        words = f"in/{source}.jsonl {TOKENIZER} --output-prefix in/{name}".split()
        code = wait(start(folder, Tool("preprocess", ""), words))
        assert code == 0, f"the inputs could not be made (exit code {code})"


def start(folder: Path, tool: Tool, words: Sequence[str] = ()) -> int:
    """A tool in a fork of this process, the first of its group; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # Workers are fresh interpreters, which look for this package where they are started.
        root = str(Path(__file__).parents[2])
        os.environ["PYTHONPATH"] = root
        sys.path.insert(0, root)
        module = importlib.import_module(f"data_tools.{tool.module}")
        code = module.main(list(words or tool.words.split()))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def contents(folder: Path) -> dict[str, bytes]:
    """Of every file below; folders count too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def run_whole(folder: Path, tool: Tool) -> dict[str, bytes]:
    """What a run leaves. RuntimeError if it fails."""
    code = wait(start(folder, tool))
    if code:
        raise RuntimeError(f"exit code {code}: {(folder / 'log').read_text()[-2000:]}")
    return contents(folder / "out")


def kill_and_go_on(
    folder: Path, tool: Tool, seconds: float, whole: dict[str, bytes]
) -> tuple[str, str]:
    """Returns what the kill met, and what is wrong, if anything."""
    pid = start(folder, tool)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        os.killpg(pid, signal.SIGKILL)
    met = "killed" if wait(pid) == -signal.SIGKILL else "too late"
    there = contents(folder / "out")
    torn = [name for name in there if name in whole and there[name] != whole[name]]
    torn = [name for name in torn if Path(name).name != GROWS]
    if met == "too late":
        return met, "" if there == whole else "what stands there differs"
    if there:
        met = "killed, some done" if there.keys() & whole.keys() else "killed, begun"
    try:
        found = run_whole(folder, tool)
    except RuntimeError as failed:
        return met, str(failed)
    different = sorted(
        {*found, *whole} - {name for name in found if found[name] == whole.get(name)}
    )
    wrong = f"{', '.join(torn)} torn" if torn else ""
    return met, wrong or (f"{', '.join(different)} differ" if different else "")


def campaign(chosen: Range, directory: Path) -> int:
    """Returns how many were wrong."""
    write_inputs(directory)
    wholes: dict[str, tuple[float, dict[str, bytes]]] = {}
    met, done, bad = Counter[str](), 0, 0
    for number in chosen:
        dice = random.Random(f"{chosen.seed}/{number}")
        name = list(TOOLS)[number % len(TOOLS)]
        if not chosen.has(name):
            continue
        out = directory / "out"
        if name not in wholes:
            started = time.monotonic()
            whole = run_whole(directory, TOOLS[name])
            wholes[name] = time.monotonic() - started, whole
            shutil.rmtree(out)
            out.mkdir()
        seconds, whole = wholes[name]
        moment = dice.uniform(0, seconds)
        came, wrong = kill_and_go_on(directory, TOOLS[name], moment, whole)
        done, bad = done + 1, bad + bool(wrong)
        met[f"{name}: {came}"] += 1
        if wrong:
            out.rename(directory / f"wrong {number}")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        told = f"WRONG: {wrong}" if wrong else "equal"
        print(
            f"{number:3d} {name} after {moment:.2f} of {seconds:.2f} s: {came}, {told}", flush=True
        )
    print(f"{done} kills (seed {chosen.seed}), {bad} wrong; {dict(sorted(met.items()))}")
    return bad


if __name__ == "__main__":
    sys.exit(run_campaign(campaign, __doc__ or "", "kills", 100, warm_up))
