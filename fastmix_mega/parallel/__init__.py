"""Process groups, devices, and what lets megatron-core run without CUDA."""
