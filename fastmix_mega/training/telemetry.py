"""What a run tells: metrics.jsonl, history.jsonl, a progress line, and wandb. Rank 0 only."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from fastmix_mega.config.schema import Config
from fastmix_mega.files import append_jsonl, read_jsonl, write_atomic
from fastmix_mega.training.place import RESTARTED, restarts_of
from fastmix_mega.training.wandb_mirror import start_wandb

RELAID = "layout"
"""The kind of an event: the run goes on at another layout."""


class RunLog:
    """Appends to a run folder's files and mirrors the numbers elsewhere.

    Args:
        config: the run.
        start_step: steps that are already done; lines beyond them, from a run that was
            interrupted after its last checkpoint, are cut off.
        stream: where the progress line goes.
    """

    def __init__(self, config: Config, start_step: int, stream: TextIO = sys.stderr) -> None:
        self.config = config
        self.names = config.source_names
        self.directory = Path(config.run_dir)
        self.stream = stream
        self._unwritten: list[tuple[str, dict[str, Any]]] = []
        for name in ("metrics.jsonl", "history.jsonl", "events.jsonl"):
            _cut(self.directory / name, start_step)
        self._start_step = start_step
        self.restarts = self._count_restarts()
        """By the launcher, after failures, since the beginning of the run."""
        self.layout_changes = len([row for row in self._events() if row["kind"] == RELAID])
        """Since the beginning of the run."""
        self._started = time.perf_counter()
        self._last = (start_step, self._started)
        self._leaders = ""
        self._wandb = start_wandb(config, start_step, self.say)

    def _events(self) -> list[dict[str, Any]]:
        path = self.directory / "events.jsonl"
        return read_jsonl(path) if path.exists() else []

    def _count_restarts(self) -> int:
        known = {row["id"] for row in self._events() if row["kind"] == RESTARTED}
        for row in restarts_of(self.config.run_dir, self._start_step):
            if row["id"] not in known:
                self._append("events.jsonl", row)
                known.add(row["id"])
        return len(known)

    def layout_changed(self, before: dict[str, int], now: dict[str, int]) -> None:
        """The run goes on at another layout than that of its checkpoint; sizes by name."""
        row = {"step": self._start_step, "kind": RELAID, "before": before, "now": now}
        # A start that ends before its first checkpoint leads here again.
        if row in self._events():
            return
        self.layout_changes += 1
        names = [name for name in now if now[name] != before.get(name)]
        told = ", ".join(f"{name} {before.get(name)} to {now[name]}" for name in names)
        self.event(row, f"the run goes on at another layout after step {self._start_step}: {told}")

    def step(self, values: dict[str, Any]) -> None:
        """A line of metrics.jsonl; `values` holds step, tokens, loss, source_loss, ..."""
        now = time.perf_counter()
        steps, seconds = values["step"] - self._last[0], max(now - self._last[1], 1e-9)
        self._last = (values["step"], now)
        train = self.config.train
        speed = steps * train.global_batch * train.seq_length / seconds
        values["tokens_per_second"] = round(speed, 1)
        values["restarts"] = self.restarts
        values["layout_changes"] = self.layout_changes
        self._append("metrics.jsonl", values)
        self._progress(values, now)
        per_source = {
            f"loss/{name}": loss
            for name, loss in zip(self.names, values["source_loss"], strict=True)
            if loss is not None
        }
        scalars = {key: value for key, value in values.items() if isinstance(value, int | float)}
        self._mirror(scalars | per_source, values["step"])

    def outer_step(self, row: dict[str, Any]) -> None:
        """A line of history.jsonl."""
        self._append("history.jsonl", row)
        self._leaders = _leading_sources(self.names, row["mixture"])
        numbers = {"outer_step": row["outer_step"], "entropy": row["entropy"]}
        for kind, values in (("lambda", row["mixture"]), ("score", row["scores"])):
            numbers |= {
                f"{kind}/{name}": value for name, value in zip(self.names, values, strict=True)
            }
        numbers |= {f"target_loss/{name}": loss for name, loss in row["target_loss"].items()}
        self._mirror(numbers, row["step"])

    def evaluation(self, step: int, losses: dict[str, float]) -> None:
        self._append("metrics.jsonl", {"step": step, "eval": losses})
        self._mirror({f"eval/{name}": loss for name, loss in losses.items()}, step)
        shown = "  ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        self.say(f"step {step}: held-out loss: {shown}")

    def event(self, values: dict[str, Any], message: str) -> None:
        """A line of events.jsonl (`values` holds step and kind), and a word to the user."""
        self._append("events.jsonl", values)
        self.say(f"warning: {message}")

    def say(self, message: str) -> None:
        """A line of its own, clear of the progress line."""
        if self.stream.isatty():
            self.stream.write("\r\x1b[K")
        self.stream.write(f"{message}\n")
        self.stream.flush()

    def _append(self, file: str, values: dict[str, Any]) -> None:
        """A full disk must not end the run: its lines wait in memory and are tried again."""
        reported = bool(self._unwritten)
        self._unwritten.append((file, values))
        try:
            while self._unwritten:
                name, waiting = self._unwritten[0]
                append_jsonl(self.directory / name, waiting)
                del self._unwritten[0]
        except OSError as error:
            if not reported:
                self.say(f"warning: {self.directory / file}: {error.strerror}; the run goes on")

    def close(self) -> None:
        if self._unwritten:
            self.say(f"warning: {len(self._unwritten)} lines could not be written")
        if self._wandb is not None:
            self._wandb.finish()

    def _progress(self, values: dict[str, Any], now: float) -> None:
        done, total = values["step"], self.config.train.steps
        per_step = (now - self._started) / max(1, done - self._start_step)
        left = int(per_step * (total - done))
        line = (
            f"step {done}/{total}  loss {values['loss']:.4f}  "
            f"{values['tokens_per_second']:,.0f} tokens/s  {left // 60}:{left % 60:02d} left"
        )
        if self._leaders:
            line += f"  mixture: {self._leaders}"
        if self.stream.isatty():
            self.stream.write(f"\r\x1b[K{line}")
            self.stream.write("\n" if done == total else "")
            self.stream.flush()
        else:
            self.say(line)

    def _mirror(self, numbers: dict[str, Any], step: int) -> None:
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)


def _cut(path: Path, last_step: int) -> None:
    if path.exists():
        import json

        # What ended a run is not reported again when its steps are done again.
        kept = [
            row
            for row in read_jsonl(path)
            if row["step"] <= last_step or row.get("kind") in ("hung", RESTARTED)
        ]
        write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def _leading_sources(names: Sequence[str], mixture: Sequence[float], count: int = 3) -> str:
    leaders = sorted(zip(mixture, names, strict=True), reverse=True)[:count]
    return " ".join(f"{name} {weight:.0%}" for weight, name in leaders)
