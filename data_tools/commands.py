"""What every data tool's command line shares: a user's mistake is one line and exit code 2.

A disk that is full or a folder that may not be written is one line too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from fastmix_mega.errors import UserError


def run_command(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
) -> int:
    """Parse, work, and turn UserError into a message; returns the exit code."""
    options = parser.parse_args(arguments)
    try:
        work(options)
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{parser.prog}: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    return 0


def tool_parser(module: str, description: str) -> argparse.ArgumentParser:
    """A parser for `python -m data_tools.MODULE`, with the module's docstring as its help."""
    return argparse.ArgumentParser(
        prog=f"python -m data_tools.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
