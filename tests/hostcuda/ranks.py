"""`tests.ranks` with CUDA devices made of host memory: one request a line, one exit code a line.

python -m tests.hostcuda.ranks
"""

from tests.hostcuda import device

if __name__ == "__main__":
    device.activate()
    from tests import ranks

    ranks.main()
