"""State that a checkpoint keeps, named once."""

from __future__ import annotations

from typing import Any


class Resumable:
    """An object whose attributes in `resumes` are saved in a checkpoint and read back.

    Values are numbers, text, arrays, tensors, None, lists and dictionaries of these, or other
    `Resumable` objects. A resumed object is first built as for a new run, then loaded.
    """

    resumes: tuple[str, ...] = ()

    def state(self) -> dict[str, Any]:
        """What `load` needs; it holds no objects of this project, only plain values."""
        found = {}
        for name in self.resumes:
            value = getattr(self, name)
            found[name] = value.state() if isinstance(value, Resumable) else value
        return found

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        for name in self.resumes:
            value = getattr(self, name)
            if isinstance(value, Resumable):
                value.load(state[name])
            else:
                setattr(self, name, state[name])
