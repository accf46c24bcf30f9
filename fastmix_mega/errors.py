"""The errors that a user can cause; everything else is our mistake and keeps its stack trace."""

import errno

REFUSED = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EFBIG, errno.ELOOP),
)
"""Codes of an OSError by which a disk or its owner refuses something."""
NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)
"""Of these, what is wrong with the name itself."""
EXIT_USER_MISTAKE = 2
EXIT_DECIDED = 3
"""Of a process of several, to its launcher: a guard or the disk ended the run, and it was told. The
launcher itself ends with 1 then."""


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
