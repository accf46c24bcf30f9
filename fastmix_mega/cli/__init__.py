"""The `fastmix` command."""
