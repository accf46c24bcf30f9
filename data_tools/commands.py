"""What every data tool's command line shares: a user's mistake is one line and exit code 2.

A disk that is full or a folder that may not be written is one line too.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Sequence

from fastmix_mega.errors import UserError, shown

TOOLS = {
    "preprocess": "text to an indexed token file (.bin/.idx) with a manifest",
    "preprocess_choices": "multiple-choice questions to token files",
    "train_tokenizer": "a sentencepiece tokenizer from sources in given proportions",
    "merge": "several indexed token files into one",
    "split": "train, valid and test by a hash of each document",
    "inspect": "documents, tokens, lengths and decoded text of token files",
    "verify": "find damage in token files",
    "dedup": "remove documents of sources that a target also holds",
    "build_corpora": "training, target and judge documents without leakage",
    "build_instructions": "instruction data made of local text",
    "prepare": "corpora, tokenizer and token files in one go",
}
"""Every command, and what it is for."""


class ToolError(Exception):
    """A failure of the machine rather than of the user: exit code 1, without a stack trace."""


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
        print(f"{parser.prog}: {shown(error)}", file=sys.stderr)
        return 2
    except ToolError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{parser.prog}: {where}{error.strerror or error}{_remedy(error)}", file=sys.stderr)
        return 2
    return 0


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "; make room and run the same command again: what is finished is kept"
    return ""


def tool_parser(module: str, description: str) -> argparse.ArgumentParser:
    """A parser for `fastmix data MODULE`, with the module's docstring as its help."""
    return argparse.ArgumentParser(
        prog=f"fastmix data {module}",
        description=description.replace("python -m data_tools.", "fastmix data "),
        formatter_class=_Help,
    )


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a description, and says the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        nothing = action.default is None or action.default is False or action.default == []
        if nothing or action.default is argparse.SUPPRESS or "(default" in text:
            return text
        return f"{text} (default: {_shown(action.default)})"


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return "/".join(map(str, default))
    return str(default).replace("%", "%%")
