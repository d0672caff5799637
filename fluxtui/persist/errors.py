"""The errors that a user can meet: one sentence each, which says what to do.

Every verb of the command line ends with the exit code of the error that ended it.
"""

from __future__ import annotations

import enum
import errno
import os


class ExitCode(enum.IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    TIMED_OUT = 5


class FluxTUIError(Exception):
    """Something that the user can fix. `str(error)` is one sentence that says what to do."""

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
    """The disk is full, read-only, not ours, or failed to keep what was written.

    `errno` is the system's own code where one was the cause, so that a full disk can be told from a broken one.
    """

    def __init__(self, sentence: str, errno: int | None = None) -> None:
        super().__init__(sentence)
        self.errno = errno

    @classmethod
    def of(cls, error: OSError, doing: str, path: object) -> StorageError:
        """The sentence for what the system answered. `doing` is a verb phrase: "write", "sync", "rename"."""
        words = _SENTENCES.get(error.errno or 0, error.strerror or str(error))
        if error.errno == errno.ENOSPC and _lacks_inodes(os.path.dirname(str(path))):
            words = _NO_INODES
        if doing == "start" and error.errno in (errno.EAGAIN, errno.ENOMEM):
            words = _NO_PROCESS
        return cls(f"cannot {doing} {path}: {words}", error.errno)


def _lacks_inodes(folder: str) -> bool:
    """Whether bytes are free on that disk and no more files can be made."""
    try:
        found = os.statvfs(folder)
    except (OSError, ValueError):
        return False
    return found.f_files > 0 and found.f_favail == 0 and found.f_bavail > 0


_NO_INODES = "the disk can hold no more files (`df -i`); remove some, or point FLUXTUI_HOME at another disk"
_NO_PROCESS = "the limit on processes (`ulimit -u`, a container's pids limit) or the memory is used up; close other programs"
_FULL = "the disk is full; free some room, or point FLUXTUI_HOME at a larger disk"
_SENTENCES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "your disk quota is used up; free some room, or point FLUXTUI_HOME at another disk",
    errno.EFBIG: "the file would be larger than this file system or `ulimit -f` allows; raise the limit or use another disk",
    errno.EROFS: "the disk is read-only; mount it writable, or point FLUXTUI_HOME at another disk",
    errno.EIO: "the disk failed (input/output error); look at `dmesg`, and point FLUXTUI_HOME at a sound disk",
    errno.EACCES: "permission denied; make the folder yours, or point FLUXTUI_HOME at one that is",
    errno.EPERM: "the system does not permit it; make the folder yours and mutable, or point FLUXTUI_HOME at another",
    errno.EISDIR: "a folder lies in its place; move it away",
    errno.ENOTDIR: "something else lies in the place of its folder; move it away",
    errno.EMFILE: "too many open files; raise `ulimit -n`",
    errno.ENFILE: "the machine has too many open files; close other programs",
}
DISK_FULL: frozenset[int] = frozenset({errno.ENOSPC, errno.EDQUOT})
