"""What a checkpoint can do: held-out losses, and tasks of lm-evaluation-harness."""
