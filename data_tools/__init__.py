"""Prepare data: raw corpora to indexed token files. Every module is a command: python -m data_tools.NAME."""
