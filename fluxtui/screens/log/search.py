"""The lines of a log that match a pattern, as they are found: the front's end of `scan`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from pathlib import Path

from fluxtui.screens.log.scan import PASS_OVER, TOO_MANY, finder


class BadPattern(ValueError):
    """Not a regular expression; says why."""


class LogSearch:
    """Runs one scan in a child process. `on_found` is called in a thread whenever there are more, and at the end."""

    def __init__(self, path: Path, pattern: str, offset: int, line: int, on_found: Callable[[LogSearch], None]) -> None:
        self.check(pattern)
        self.pattern = pattern
        self.lines: array[int] = array("Q")  # ascending
        self.is_over = False  # everything that was there has been looked at
        self.is_cut = False  # more lines match than are kept
        self._on_found = on_found
        self._lock = threading.Lock()
        command = [sys.executable, "-P", "-m", "fluxtui.screens.log.scan", str(path), pattern, str(offset), str(line)]
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        threading.Thread(target=self._read, daemon=True, name="log search").start()

    @staticmethod
    def check(pattern: str) -> None:
        """Raises `BadPattern`."""
        try:
            finder(pattern)
        except re.error as error:
            raise BadPattern(str(error)) from error

    def stop(self) -> None:
        """End the scan."""
        self._child.kill()

    def _read(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as stream:
            rest = b""
            while data := os.read(stream.fileno(), 1 << 16):
                data = rest + data
                whole = len(data) // 8 * 8
                rest = data[whole:]
                numbers = array("Q")
                numbers.frombytes(data[:whole])
                if sys.byteorder == "big":
                    numbers.byteswap()
                self._take(numbers)
                self._on_found(self)
        self._child.wait()
        self.is_over = True
        self._on_found(self)

    def _take(self, numbers: array[int]) -> None:
        with self._lock:
            for number in numbers:
                if number == PASS_OVER:
                    self.is_over = True
                elif number == TOO_MANY:
                    self.is_over = self.is_cut = True
                elif not self.lines or number > self.lines[-1]:
                    self.lines.append(number)
                else:
                    insort(self.lines, number)

    def count(self) -> int:
        return len(self.lines)

    def is_match(self, line: int) -> bool:
        with self._lock:
            at = bisect_left(self.lines, line)
            return at < len(self.lines) and self.lines[at] == line

    def after(self, line: int) -> int | None:
        """The first matching line behind this one."""
        with self._lock:
            at = bisect_right(self.lines, line)
            return self.lines[at] if at < len(self.lines) else None

    def before(self, line: int) -> int | None:
        """The last matching line before this one."""
        with self._lock:
            at = bisect_left(self.lines, line)
            return self.lines[at - 1] if at else None

    def part(self, first: int, count: int) -> list[int]:
        """Some of the matching lines, by their place."""
        with self._lock:
            return list(self.lines[first : first + count])
