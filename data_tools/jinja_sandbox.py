"""Where chat templates run: Jinja's sandbox, with what `transformers` offers there, and limits.

A template is a program of somebody else's. It sees neither files nor the clock, and one that loops
for ever or builds a text of gigabytes is stopped.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import resource
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

START, END = "\ufdd0", "\ufdd1"
"""Around generated text while it is rendered: two code points that no text may hold."""
STANDS_FOR = "\ufdd5"
"""In place of a message, to see where it stands."""
TODAY = datetime.datetime(2024, 7, 26)
"""What templates are told that it is, so that a run that goes on tomorrow is the same. Llama 3's
templates have this date where they are told none."""
SECONDS = 10.0
"""Of processor time for one text."""
MEMORY = 2 << 30
"""Bytes more than what the process has."""


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: marks what the model is to write."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        block = nodes.CallBlock(self.call_method("_mark"), [], [], body)
        return block.set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{START}{caller()}{END}"


def make_environment() -> ImmutableSandboxedEnvironment:
    """The environment of a template."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = TODAY.strftime
    return environment


class TooLongError(Exception):
    """A template took longer than it may."""


@contextlib.contextmanager
def limits(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Inside, code that takes longer is ended by TooLongError, and what needs more memory fails.

    Both hold for the whole process, so that there is no limit of time beside its main thread.
    """
    timed = threading.current_thread() is threading.main_thread()
    old_limit = resource.getrlimit(resource.RLIMIT_AS)
    given = [limit for limit in old_limit if limit != resource.RLIM_INFINITY]
    ceiling = min([_address_space() + memory, *given])
    old_handler = signal.signal(signal.SIGVTALRM, _too_long) if timed else None
    try:
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, old_limit[1]))
        if timed:
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, old_handler)
        resource.setrlimit(resource.RLIMIT_AS, old_limit)


def _too_long(*_: Any) -> None:
    raise TooLongError


def _address_space() -> int:
    """Bytes."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes what HTML would misread.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
