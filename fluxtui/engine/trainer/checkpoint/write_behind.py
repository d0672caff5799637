"""Checkpoints are written while training goes on: one at a time, in a thread; the loop alone speaks of them.

The thread writes buffers that no step changes, in the order of the protocol (`persist.checkpoints.commit`). A second write
waits for the first, the end of a run waits for the last, and what went wrong in the thread is raised in the loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Count = Callable[[int], None]  # bytes that were handed to the disk
_TELL_SECONDS = 0.5  # between two words of whoever waits


@dataclass(frozen=True, slots=True)
class Written:
    """A write that has ended well."""

    name: str
    seconds: float  # until it was durable


@dataclass(slots=True)
class _Write:
    """One write under way."""

    name: str
    total: int  # bytes
    work: Callable[[Count], None]
    done: int = 0
    error: BaseException | None = None
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        # Not a daemon: an interpreter that ends waits for a checkpoint that is being written.
        self.thread = threading.Thread(target=self._run, name=f"write {self.name}")
        self.thread.start()

    def _run(self) -> None:
        try:
            self.work(self._count)
        except BaseException as error:  # noqa: BLE001  (the edge of a thread: raised again in the loop)
            self.error = error
        self.seconds = time.monotonic() - self.began

    def _count(self, size: int) -> None:
        self.done += size


class WriteBehind:
    """At most one write under way."""

    def __init__(self) -> None:
        self._write: _Write | None = None

    def begin(self, name: str, total: int, work: Callable[[Count], None]) -> None:
        """Write in a thread; `work` is given a function that takes the bytes it has written. The one before must be settled."""
        assert self._write is None, "a write is under way"
        self._write = _Write(name, total, work)

    def poll(self) -> Written | None:
        """The write that has ended since the last call. Raises what went wrong in it."""
        if self._write is None or self._write.thread.is_alive():
            return None
        return self._take()

    def settle(self, tell: Callable[[int, int], None]) -> Written | None:
        """Wait for the write under way, telling (bytes done, bytes in all); None where there is none. Raises as `poll` does."""
        if self._write is None:
            return None
        while self._write.thread.is_alive():
            tell(self._write.done, self._write.total)
            self._write.thread.join(_TELL_SECONDS)
        return self._take()

    def _take(self) -> Written:
        ended, self._write = self._write, None
        assert ended is not None
        if ended.error is not None:
            raise ended.error
        return Written(ended.name, ended.seconds)
