"""The megatron-core model, from a configuration."""
