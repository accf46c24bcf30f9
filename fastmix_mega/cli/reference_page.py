"""Print the page of all configuration keys.

python -m fastmix_mega.cli.reference_page > docs/reference.md
"""

from __future__ import annotations

from fastmix_mega.config.keys_page import reference
from fastmix_mega.configuration import full_schema
from fastmix_mega.methods.registry import METHODS


def page() -> str:
    """docs/reference.md."""
    return reference(full_schema(), METHODS)


if __name__ == "__main__":
    print(page(), end="")
