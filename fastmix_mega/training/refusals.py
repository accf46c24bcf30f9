"""What the disk or its owner refuses to the process that writes, told to all processes of a run."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fastmix_mega.errors import REFUSED
from fastmix_mega.parallel.layout import Layout


def refusal_on_main(layout: Layout, write: Callable[[], None]) -> str | None:
    """Let the main process write. Collective.

    Args:
        layout: this process's place.
        write: called on the main process alone.

    Returns:
        None on every process if it could; else why not, which the main process alone can say.

    Raises:
        OSError: on the main process, if it is none of `errors.REFUSED`.
    """
    refused: OSError | None = None
    if layout.is_main:
        try:
            write()
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            refused = error
    failed = torch.tensor([int(refused is not None)], device=layout.device)
    if not layout.broadcast_from_main(failed).item():
        return None
    return "" if refused is None else str(refused.strerror)
