"""Reads a log for a pane, in a thread of its own: the pane says which lines it wants, the thread says what they are.

A log too long to be indexed at once is shown from its end meanwhile: a provisional page, whose lines are numbered from
the first line of the tail. When the index is whole, the page says how far those numbers move.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.logfile import TAIL_LIMIT, LogIndex, tail

PERIOD = 0.25  # seconds between looks at a file that may grow
AT_ONCE = 32 << 20  # bytes indexed before another look at what is wanted


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some lines of a log, clean, and how many there are in all."""

    path: Path | None = None
    generation: int = 0  # another one: the file was cut off or begun anew
    count: int = 0  # lines in the file; on a provisional page: in its tail
    first: int = 0  # number of the first line here
    lines: Sequence[str] = ()
    is_read: bool = False  # the file has been looked at
    indexed: float = 1.0  # share of the file that is indexed; below 1 the page is provisional
    moved: int = 0  # how much higher the numbers of the provisional page before are counted now
    trouble: str = ""

    def line(self, at: int) -> str | None:
        """The text of a line; None where it is not on this page."""
        return self.lines[at - self.first] if self.first <= at < self.first + len(self.lines) else None


class LogSource:
    """Follows one file. `take` is called in the thread, with each new page."""

    def __init__(self, path: Path, take: Callable[[LogPage], None]) -> None:
        self._path, self._take = path, take
        self._has_news = threading.Event()
        self._is_over = False
        self._wanted: tuple[int, int] | None = None  # first line, number of lines; None: the end
        self._at_end = 100
        self._index = LogIndex(path)
        self._provisional_lines = 0
        self._said: tuple[object, ...] = ()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="log").start()

    def stop(self) -> None:
        self._is_over = True
        self._has_news.set()

    def want(self, first: int, count: int) -> None:
        self._wanted = (first, count)
        self._has_news.set()

    def want_end(self, count: int) -> None:
        self._wanted, self._at_end = None, count
        self._has_news.set()

    def _run(self) -> None:
        try:
            while not self._is_over:
                has_more = self._look()
                if not has_more:
                    self._has_news.wait(PERIOD)
                self._has_news.clear()
        finally:
            self._index.close()

    def _look(self) -> bool:
        """Index what was written, say what is wanted where that is news; whether there is more to index."""
        index = self._index
        try:
            has_more = index.update(AT_ONCE)
            if has_more:
                self._say_provisionally(index)
                return True
            moved, self._provisional_lines = (index.count - self._provisional_lines if self._provisional_lines else 0), 0
            wanted = self._wanted
            state = (index.generation, index.size, index.count, wanted, self._at_end)
            if state != self._said:
                first, number = wanted or (max(0, index.count - self._at_end), self._at_end)
                first = min(first, max(0, index.count - 1))
                lines = index.read(first, number)
                self._take(LogPage(self._path, index.generation, index.count, first, lines, True, 1.0, moved))
                self._said = state
        except FluxTUIError as error:
            if self._said != (str(error),):
                self._said = (str(error),)
                self._take(LogPage(self._path, is_read=True, trouble=str(error)))
        return False

    def _say_provisionally(self, index: LogIndex) -> None:
        if self._provisional_lines:
            return
        lines = tail(self._path, 100_000, TAIL_LIMIT)
        self._provisional_lines = len(lines)
        share = index.size / max(1, os.stat(self._path).st_size)
        self._take(LogPage(self._path, index.generation, len(lines), 0, lines, True, min(share, 0.99)))
