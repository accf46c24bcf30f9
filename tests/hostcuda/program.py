"""Any module of ours with CUDA devices made of host memory:

python -m tests.hostcuda.program MODULE [ARGUMENTS ...]
"""

import os
import runpy
import sys

from tests.hostcuda import device

if __name__ == "__main__":
    # One process without a launcher takes all GPUs there are; a hidden device is not there.
    os.environ.setdefault(device.COUNT_VARIABLE, "1")
    device.activate()
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
