"""The errors that a user can cause; everything else is our mistake and keeps its stack trace."""


class UserError(ValueError):
    """A mistake in a configuration, a command line or an input file.

    The message says what is wrong, where, and what to do. Command lines print it without a stack
    trace and exit with code 2.
    """


LONGEST_MESSAGE = 10_000
"""Characters of a message that are shown: a file may name itself by megabytes."""


def shown(error: UserError) -> str:
    """A message, or its start."""
    text = str(error)
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."


MISSHAPEN = (AttributeError, TypeError, LookupError, ArithmeticError, ValueError, RecursionError)
"""What Python raises where somebody else's plain data has another form than its reader expects."""


class RunFailed(RuntimeError):
    """A run that a guard ended for a reason that the message tells; exit code 1, no stack trace."""


class Stopped(Exception):
    """The run stopped as asked, with a checkpoint; exit code 75 (`training.stop.EXIT_STOPPED`)."""
