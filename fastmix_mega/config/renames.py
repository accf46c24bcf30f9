"""Old names in a user's configuration: they keep working, with a note that says the new one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastmix_mega.errors import UserError

Note = Callable[[str], None]
"""Is given what the user should know."""

RENAMED_VALUES = {("search", "initial"): {"token_pairs": "bigram"}}
"""By key, old values and new ones."""
REMOVED = {
    ("search", "quick_start"): (False, "a search starts as with false"),
    ("model", "experts"): (
        1,
        "mixture-of-experts proxies are not supported: megatron-core's router needs "
        "TransformerEngine, and its token dispatcher CUDA streams",
    ),
}
"""By key, the only value that an old configuration may hold, and why there is no other."""


def with_new_names(content: dict[str, Any], where: str, note: Note) -> dict[str, Any]:
    """The same settings without old names.

    Args:
        content: the plain data of a configuration file.
        where: the file, for messages.
        note: hears of every old name.

    Raises:
        UserError: if a key that is gone asks for something else than what is done now.
    """
    found = dict(content)
    for (section, key), values in RENAMED_VALUES.items():
        given = _given(found, section, key)
        if isinstance(given, str) and given in values:
            note(f"{where}: {section}.{key}: {given} is called {values[given]} now")
            found[section] = found[section] | {key: values[given]}
    for (section, key), (only, reason) in REMOVED.items():
        if _given(found, section, key) is None:
            continue
        if found[section][key] != only:
            raise UserError(f"{where}: {section}.{key} no longer exists: {reason}; leave it out")
        note(f"{where}: {section}.{key} no longer exists, and is not needed; leave it out")
        found[section] = {name: value for name, value in found[section].items() if name != key}
    return found


def _given(content: dict[str, Any], section: str, key: str) -> Any:
    inner = content.get(section)
    return inner.get(key) if isinstance(inner, dict) else None
