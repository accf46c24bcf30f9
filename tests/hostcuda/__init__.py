"""The product's CUDA paths with real values on a machine without a GPU.

`hostcuda.cpp` puts host memory behind torch's CUDA dispatch key, `device.py` makes `torch.cuda` of
it and `collectives.py` NCCL, and `ranks.py` runs `fastmix` so. Seen are: tensors on the wrong
device, collectives over the wrong group or of tensors that NCCL does not take, choices that depend
on `torch.cuda`, waits for the GPU. Not seen are real kernels, Triton, TransformerEngine, streams,
hangs and GPU memory.

`test_*.py` here is the part for every day. The long matrix (all layouts, methods and precisions
against the CPU, about ten minutes on two cores):

    python -m tests.hostcuda.matrix [NAME ...]
"""
