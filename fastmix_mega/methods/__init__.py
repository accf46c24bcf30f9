"""Ways to find a mixture: one file each."""
