"""Faults of a blend file, found before a large run starts."""
