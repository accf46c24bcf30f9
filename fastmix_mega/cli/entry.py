"""Where the `fastmix` command begins: Ctrl-C while Python still imports is no stack trace."""

from __future__ import annotations

import sys

EXIT_INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""


def main() -> int:
    """The command on the words of the command line; returns the exit code."""
    try:
        from fastmix_mega.cli.main import main as command

        return command()
    except BaseException as error:
        if not _is_interrupt(error):
            raise
        print("fastmix: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _is_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C is behind an error: pydantic, while it builds a schema, wraps it in words."""
    if isinstance(error, KeyboardInterrupt):
        return True
    return type(error).__name__ == "SchemaError" and "KeyboardInterrupt" in str(error)
