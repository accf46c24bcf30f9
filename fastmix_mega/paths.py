"""Paths as users write them: `~` and `$NAME` are expanded; relative ones are the current folder's.

One rule for every path in a configuration, on a command line and in a mixture.json: a relative path
is taken from the folder in which the command runs, as the shell takes it, and never from the folder
of the file that names it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path


def expand(path: str) -> str:
    """The path without `~` and `$NAME`.

    Raises:
        ValueError: if there is no such user or environment variable, or no path can be so.
    """
    if not path.strip() or "\0" in path:
        raise ValueError("a path must not be empty or hold a zero byte")
    expanded = os.path.expandvars(path)
    unknown = re.search(r"\$(\w+|\{\w+\})", expanded)
    if unknown:
        name = unknown[1].strip("{}")
        raise ValueError(f"{path!r} needs the environment variable {name}, which is not set")
    found = os.path.expanduser(expanded)
    if found.startswith("~"):
        raise ValueError(f"{path!r}: there is no user {found[1:].split('/')[0]!r}")
    return found


def rule_for(path: str | Path) -> str:
    """How a relative path was understood, to be added to an error; empty for others."""
    if os.path.isabs(path) or "://" in str(path):
        return ""
    return f" (relative paths are taken from the current folder, {os.getcwd()})"
