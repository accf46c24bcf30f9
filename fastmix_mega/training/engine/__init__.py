"""The DeepSpeed engine: one training step, and what is measured in it."""
