"""The session's log: the keeper's own lines, the markers that scripts look for, and the cap on its size.

The trainer writes into the same file through descriptors it inherited. Both append, so neither overwrites the other; nobody
reads through a pipe, so nobody can block. A log that cannot be written never ends a training: the record is the truth.
One that was removed or replaced is made anew, and what a trainer still writes into the old file is carried over.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from fluxtui.engine.keeper.orphaned_log import OrphanedLog
from fluxtui.persist.errors import DamagedError
from fluxtui.persist.files.durable import write_all
from fluxtui.persist.files.regular import open_for_writing
from fluxtui.persist.files.text import clean

CAP = 64 * 2**20  # bytes of training.log; then it is copied to training.log.1 and begun anew
_RULE = "=" * 80
_CHUNK = 4 * 2**20
_COPY_SECONDS = 0.2  # how long one tick may copy


class Log:
    """training.log, held open with O_APPEND for the keeper's life."""

    def __init__(self, path: Path, cap: int = CAP) -> None:
        self.path = path
        self.cap = cap
        self.fd = open_for_writing(path, os.O_RDWR | os.O_APPEND)
        self._copy: _Copy | None = None
        self._orphaned: OrphanedLog | None = None  # the file that processes write to, once it is not the one at the path
        self._is_given = False  # processes have it
        self._is_missed = False  # it was not at its path at the last look
        self._size_seen = os.fstat(self.fd).st_size  # bytes, when it last was

    def for_processes(self) -> int:
        """The descriptor for processes that are about to be started. Those that were given one before must be gone."""
        self._carry_over(to_the_end=True)
        if self._orphaned is not None:
            self._orphaned.close()
            self._orphaned = None
        self._is_given = True
        return self.fd

    def line(self, text: str) -> None:
        """One line of the keeper's own. Foreign text in it is made inert."""
        self._carry_over()
        self._append(f"[keeper] {clean(text, 1000)}\n")

    def marker(self, *lines: str) -> None:
        """The lines between two rules of 80 `=`, written at once, where the user finds them."""
        self._is_missed = True
        self._stay_at_path()
        self._carry_over(to_the_end=True)
        body = "\n".join(clean(text, 1000) for text in lines)
        self._append(f"{_RULE}\n{body}\n{_RULE}\n")

    def last_line(self) -> str:
        """The last line that is not blank and not the keeper's own, cleaned; looks at 8 KiB at most."""
        self._carry_over(to_the_end=True)
        with contextlib.suppress(OSError):
            tail = os.pread(self.fd, 8192, max(0, os.fstat(self.fd).st_size - 8192))
            lines = [text for text in tail.decode(errors="replace").splitlines() if text.strip()]
            return next((clean(text, 500) for text in reversed(lines) if not text.startswith(("[keeper]", _RULE))), "")
        return ""

    def keep_short(self) -> None:
        """Every half second: at its path, and within its cap. Past the cap it is copied to `.1`, then truncated.

        At most 0.2 s of copying at a time: a flood never holds the keeper. The copy gets its name before its last bytes, so
        that between the read that finds no more and the truncation there are microseconds: what is written in them is lost.
        Past four times the cap it is cut wherever the copy is.
        """
        self._stay_at_path()
        self._carry_over()
        size = os.fstat(self.fd).st_size
        if self._copy is None and size <= self.cap:
            return
        with contextlib.suppress(OSError):
            if self._copy is None:
                self._copy = _Copy(self.fd, self.path, max(0, size - self.cap))
            is_flooded = size > 4 * self.cap
            if self._copy.proceed(time.monotonic() + _COPY_SECONDS) or is_flooded:
                self._copy.take_its_name()
                if self._copy.proceed(time.monotonic() + _COPY_SECONDS) or is_flooded:
                    os.ftruncate(self.fd, 0)
                    self._copy.close()
                    self._copy = None
            return
        if self._copy is not None:
            self._copy.give_up()
            self._copy = None
        with contextlib.suppress(OSError):  # no room, or no place, for a copy: the cap holds all the same
            os.ftruncate(self.fd, 0)

    def _stay_at_path(self) -> None:
        """Where the path is no longer this file, at two looks: a new one. Not at the first: perhaps the whole session goes."""
        mine = os.fstat(self.fd)
        if _is_at(self.path, mine):
            self._is_missed, self._size_seen = False, mine.st_size
            return
        was_missed, self._is_missed = self._is_missed, True
        if not was_missed:
            return
        with contextlib.suppress(OSError, DamagedError):  # no room, or something else lies there: it is tried again
            fresh = open_for_writing(self.path, os.O_RDWR | os.O_APPEND)
            try:
                self._go_on_in(fresh, mine)
            finally:
                os.close(fresh)

    def _go_on_in(self, fresh: int, mine: os.stat_result) -> None:
        if self._copy is not None:
            self._copy.give_up()
            self._copy = None
        old = OrphanedLog(os.dup(self.fd), min(self._size_seen, mine.st_size), self.cap)
        is_stderr = os.path.samestat(os.fstat(2), mine)
        os.dup2(fresh, self.fd, inheritable=False)
        if is_stderr:
            os.dup2(self.fd, 2)
        self._is_missed, self._size_seen = False, 0
        self._append(f"[keeper] {self.path.name} was removed or replaced while it was written; it goes on here\n")
        if self._is_given and self._orphaned is None:
            self._orphaned = old
            return
        with contextlib.suppress(OSError):  # the keeper's own lines of a moment: whatever processes write to is an older file
            old.carry_over(self.fd, time.monotonic() + _COPY_SECONDS, to_the_end=True)
        old.close()

    def _carry_over(self, *, to_the_end: bool = False) -> None:
        if self._orphaned is not None:
            with contextlib.suppress(OSError):
                self._orphaned.carry_over(self.fd, time.monotonic() + _COPY_SECONDS, to_the_end)

    def _append(self, text: str) -> None:
        with contextlib.suppress(OSError):
            size = os.fstat(self.fd).st_size
            if size and os.pread(self.fd, 1, size - 1) != b"\n":
                text = "\n" + text
            write_all(self.fd, text.encode())


def _is_at(path: Path, mine: os.stat_result) -> bool:
    """Whether the path is that very file; where the disk does not say, nobody knows, and it counts as such."""
    try:
        return os.path.samestat(os.lstat(path), mine)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


class _Copy:
    """A copy of the log's end under way to training.log.1."""

    def __init__(self, source: int, path: Path, start: int) -> None:
        self._source, self._at, self._is_named = source, start, False
        self._final = path.with_name(path.name + ".1")
        self._temporary = path.with_name(path.name + ".1.tmp")
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()  # of a keeper that was killed; whatever it is, it is never opened
        self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def proceed(self, until: float) -> bool:
        """Copy until the end of the log (True) or until the time is up (False)."""
        while time.monotonic() < until:
            data = os.pread(self._source, _CHUNK, self._at)
            if not data:
                return True
            write_all(self._fd, data)
            self._at += len(data)
        return False

    def take_its_name(self) -> None:
        """`.1` is this copy from now on, and still grows. May be called twice."""
        if not self._is_named:
            os.replace(self._temporary, self._final)
            self._is_named = True

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a disk over the network: the copy may lack its end, and the log goes on
            os.close(self._fd)

    def give_up(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._fd)
        with contextlib.suppress(OSError):
            self._temporary.unlink()
