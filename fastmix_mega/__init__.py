"""fastmix-mega: find the best data mixture with one proxy model, and carry it to the large run."""

__version__ = "0.1.0"
