"""DeepSpeed's conversion to a universal checkpoint, as a program that opens nothing but data.

    python -m fastmix_mega.checkpoint.universal --input_folder A --output_folder B ...

DeepSpeed's own program unpickles whatever stands in a checkpoint. torch has a switch that makes
every `torch.load` a restricted one, whatever its caller asks for; this program turns it on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from fastmix_mega.checkpoint.io import allow_safe_types

SWITCH = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""torch's environment variable: `torch.load(weights_only=False)` is as `True`."""


@contextlib.contextmanager
def only_data() -> Iterator[None]:
    """Inside, every `torch.load` of this process builds tensors and the types of checkpoints only.

    Beyond these, torch raises pickle.UnpicklingError.
    """
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    try:
        allow_safe_types()
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def main() -> None:
    """The conversion, on the words of the command line."""
    from deepspeed.checkpoint import ds_to_universal

    with only_data():
        ds_to_universal.main(ds_to_universal.parse_arguments())


if __name__ == "__main__":
    main()
