"""What a trainer tells its keeper and its log.

Progress goes up the inherited pipe, one JSON line at a time, and never blocks: a line that does not fit now is dropped.
What must not be lost (a commit, an error) is offered for a little longer. The log is standard output, whole lines.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from fluxtui.engine import wire
from fluxtui.persist.files.durable import write_all
from fluxtui.persist.files.text import clean
from fluxtui.persist.sessions.record import Phase

ALIVE_SECONDS = 5.0  # between two ticks of the thread that says "alive"
IMPORTANT_SECONDS = 2.0  # how long a line that must not be lost is offered
_IMPORTANT = frozenset(
    {"error", "checkpoint", "resumed_from", "model_commit", "inexact_since", "acknowledged", "note", "versions", "memory"}
)


class Reporter:
    """One rank's voice. `fd` is the write end of the progress pipe, None where nobody listens."""

    def __init__(self, fd: int | None, rank: int = 0) -> None:
        self.fd = fd
        self.rank = rank
        self.leave_early: Callable[[], None] | None = None  # asked at each line of progress, before training begins
        if fd is not None:
            os.set_blocking(fd, False)

    @staticmethod
    def from_environment() -> Reporter:
        """As the keeper's environment says: its progress pipe and this process's rank."""
        fd = os.environ.get(wire.PROGRESS_FD)
        return Reporter(int(fd) if fd else None, int(os.environ.get("RANK", "0")))

    def progress(self, phase: Phase | None = None, **what: Any) -> None:  # noqa: ANN401  (fields of many types)
        """One `wire.ProgressLine`; the keywords are its fields."""
        if self.leave_early is not None:
            self.leave_early()
        line = wire.encode(wire.ProgressLine(rank=self.rank, phase=phase, **what))
        if not self._write(line) and not _IMPORTANT.isdisjoint(what):
            self._offer(line)

    def note(self, sentence: str) -> None:
        """For the record and the log: something that happened and that the user should know."""
        self.say(sentence)
        self.progress(note=sentence)

    def say(self, text: str) -> None:
        """One line in the log, with the time of day."""
        line = f"{time.strftime('%H:%M:%S')} {clean(text, 2000)}\n".encode()
        try:
            write_all(1, line)
        except OSError:  # a log that cannot be written is not what ends a training; the checkpoint's own write will say so
            return

    def start_ticking(self) -> None:
        """Say "alive" from a thread: it explains a stall (the interpreter still runs), and never counts as progress."""
        if self.fd is not None:
            threading.Thread(target=self._tick, name="alive", daemon=True).start()

    def _tick(self) -> None:
        line = wire.encode(wire.ProgressLine(rank=self.rank, alive=True))
        while True:
            self._write(line)
            time.sleep(ALIVE_SECONDS)

    def _write(self, line: bytes) -> bool:
        """True unless the pipe had no room; lines of up to PIPE_BUF bytes go whole or not at all."""
        if self.fd is None:
            return True
        try:
            os.write(self.fd, line)
        except BlockingIOError:
            return False
        except OSError:  # the reader is gone; so, a moment later, are we
            return True
        return True

    def _offer(self, line: bytes) -> None:
        assert self.fd is not None
        end = time.monotonic() + IMPORTANT_SECONDS
        while (left := end - time.monotonic()) > 0:
            select.select([], [self.fd], [], left)
            if self._write(line):
                return
            time.sleep(0.01)
