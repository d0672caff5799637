"""A log file that was removed or replaced while processes write to it: what they still write is copied into the new file.

Nobody can give another process a new standard output, so the keeper reads what the old file gets, by the descriptor it has.
"""

from __future__ import annotations

import os
import time

_CHUNK = 4 * 2**20
_LONGEST_LINE = 64 * 1024  # bytes that wait for their newline


class OrphanedLog:
    """The old file, from the byte on that the file of its name does not have. Owns the descriptor it is given."""

    def __init__(self, fd: int, start: int, cap: int) -> None:
        self._fd, self._at, self._cap = fd, start, cap

    def carry_over(self, to: int, until: float, to_the_end: bool) -> None:
        """Append what came since to the file `to`, until the time is up; a line without its newline waits, unless `to_the_end`.

        A file without any name takes up room that nobody sees, so it is emptied past its cap: after all of it was carried
        over, or past four times the cap wherever that is. Raises OSError, and then goes on where it was.
        """
        self._at = min(self._at, os.fstat(self._fd).st_size)  # somebody emptied it
        while time.monotonic() < until:
            data = os.pread(self._fd, _CHUNK, self._at)
            whole = len(data) if to_the_end or len(data) > _LONGEST_LINE else data.rfind(b"\n") + 1
            if not whole:
                break
            self._at += os.write(to, data[:whole])
        found = os.fstat(self._fd)
        is_done = self._at == found.st_size
        if found.st_nlink == 0 and (found.st_size > 4 * self._cap or (is_done and found.st_size > self._cap)):
            os.ftruncate(self._fd, 0)
            self._at = 0

    def close(self) -> None:
        """Of no use any more: nobody writes to it."""
        os.close(self._fd)
