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
from jinja2.filters import do_round
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

START, END = "\ufdd0", "\ufdd1"
"""Around generated text while it is rendered: two code points that no text may hold."""
STANDS_FOR = "\ufdd5"
"""In place of a message, to see where it stands."""
TODAY = datetime.datetime(2024, 7, 26)
"""What templates are told that it is, so that a run that goes on tomorrow is the same. Llama 3's
templates have this date where they are told none."""
SECONDS = 4.0
"""Of processor time for one text."""
MEMORY = 256 << 20
"""Bytes more than what the process has."""
LONGEST_NUMBER = 10_000
"""Bits."""
OWN_LENGTH, GROWTH = 1 << 20, 16
"""Characters that a template may write of its own, and how often what it is given."""


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


class _Environment(ImmutableSandboxedEnvironment):
    """Numbers stay small: no signal ends the multiplication of two that have millions of digits.

    What is intercepted is not computed when a template is compiled either.
    """

    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            longer = left.bit_length() * abs(right) if operator == "**" else left.bit_length()
            if longer + right.bit_length() > LONGEST_NUMBER:
                raise TooLongError(f"it computes a number of more than {LONGEST_NUMBER:,} bits")
        return super().call_binop(context, operator, left, right)


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    # Jinja's own computes 10 ** precision.
    return do_round(value, max(-400, min(400, precision)), method)  # type: ignore[arg-type]


def make_environment() -> ImmutableSandboxedEnvironment:
    """The environment of a template."""
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.filters["round"] = _round
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = TODAY.strftime
    return environment


class TooLongError(Exception):
    """A template wrote or computed more than it may."""


class TooSlowError(TooLongError):
    """A template took longer than it may."""


@contextlib.contextmanager
def limits(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Inside, code that takes longer is ended by TooSlowError, and what needs more memory fails.

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
    raise TooSlowError


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
