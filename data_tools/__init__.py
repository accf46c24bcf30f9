"""From raw corpora to indexed token files; each module is a command, python -m data_tools.NAME."""
