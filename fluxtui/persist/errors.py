"""The errors that a user can meet: one sentence each, which says what to do.

Every verb of the command line ends with the exit code of the error that ended it.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    TIMED_OUT = 5


class FluxTUIError(Exception):
    """Something that the user can mend. `str(error)` is one sentence that says what to do."""

    exit_code = ExitCode.FAILED


class UsageError(FluxTUIError):
    """What was typed does not fit: an unknown key, a value out of range, a bad name."""

    exit_code = ExitCode.USAGE


class NotFoundError(FluxTUIError):
    """No such session, checkpoint, folder or file."""

    exit_code = ExitCode.NOT_FOUND


class RefusedError(FluxTUIError):
    """The request is sound, but not in the state that things are in."""

    exit_code = ExitCode.REFUSED


class TimedOutError(FluxTUIError):
    """What was waited for did not come in the time given."""

    exit_code = ExitCode.TIMED_OUT


class DamagedError(FluxTUIError):
    """A file of ours is torn, changed or hostile; it is never used, and never deleted in silence."""


class StorageError(FluxTUIError):
    """The disk is full, read-only, not ours, or failed to keep what was written."""
