"""Experiments that decide what the product does; nothing here is part of it."""
