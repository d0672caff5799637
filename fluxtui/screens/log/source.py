"""Reads a log for a pane, in a thread of its own: the pane says which lines it wants, the thread says what they are.

A log too long to be indexed at once is shown from its end meanwhile: a provisional page, whose lines are numbered from
the first line of the tail. When the index is whole, the page says how far those numbers move.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    chosen: Mapping[int, str] | None = None  # lines by number, where only some were wanted
    held: tuple[int, int] | None = None  # of a new generation: the byte that the reader was at, and the line it is in now

    def line(self, at: int) -> str | None:
        """The text of a line; None where it is not on this page."""
        if self.chosen is not None:
            return self.chosen.get(at)
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
        self._chosen: list[int] | None = None  # these lines and no others
        self._questions: deque[Callable[[LogIndex], None]] = deque()
        self.held: int | None = None  # the line that the reader holds; its byte is kept for when the file is another one
        self._held_before: int | None = None
        self._held_byte = 0
        self._generation = 0

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="log").start()

    def stop(self) -> None:
        self._is_over = True
        self._has_news.set()

    def want(self, first: int, count: int) -> None:
        """Lines by number."""
        self._wanted, self._chosen = (first, count), None
        self._has_news.set()

    def want_end(self, count: int) -> None:
        """The last lines, whichever they are."""
        self._wanted, self._at_end, self._chosen = None, count, None
        self._has_news.set()

    def want_lines(self, numbers: list[int]) -> None:
        """These lines, wherever they stand."""
        self._chosen = numbers
        self._has_news.set()

    def ask(self, question: Callable[[LogIndex], None]) -> None:
        """Have something done with the index, in its thread."""
        self._questions.append(question)
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
            while self._questions:
                self._questions.popleft()(index)
            held = self._held(index)
            wanted, chosen = self._wanted, self._chosen
            state = (index.generation, index.size, index.count, wanted, self._at_end, chosen)
            if state != self._said:
                page = LogPage(self._path, index.generation, index.count, 0, (), True, 1.0, moved, held=held)
                if chosen is not None:
                    texts = {number: text for number in chosen for text in index.read(number, 1)}
                    self._take(replace(page, chosen=texts))
                else:
                    first, number = wanted or (max(0, index.count - self._at_end), self._at_end)
                    first = min(first, max(0, index.count - 1))
                    self._take(replace(page, first=first, lines=index.read(first, number)))
                self._said = state
        except FluxTUIError as error:
            if self._said != (str(error),):
                self._said = (str(error),)
                self._take(LogPage(self._path, index.generation, is_read=True, trouble=str(error)))
        return False

    def _held(self, index: LogIndex) -> tuple[int, int] | None:
        """Keep the byte that the held line begins at; where the file is another one now, say what stands there."""
        if index.generation != self._generation:
            self._generation, self._held_before = index.generation, None
            held, self.held = self.held, None
            return (self._held_byte, index.line_at(self._held_byte)) if held is not None else None
        if self.held != self._held_before:
            self._held_before = self.held
            self._held_byte = index.offset_of(self.held or 0)
        return None

    def _say_provisionally(self, index: LogIndex) -> None:
        if self._provisional_lines:
            return
        lines = tail(self._path, 100_000, TAIL_LIMIT)
        self._provisional_lines = len(lines)
        share = index.size / max(1, os.stat(self._path).st_size)
        self._take(LogPage(self._path, index.generation, len(lines), 0, lines, True, min(share, 0.99)))
