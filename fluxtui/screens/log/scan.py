"""Finds the lines of a log that match, in a process of its own: `python -m fluxtui.screens.log.scan PATH PATTERN OFFSET LINE`.

A regular expression holds the interpreter while it runs, and a bad one never ends; so it runs where it can be killed.
Written to standard output: 8-byte numbers, little-endian, of the lines that match: first those from OFFSET on, which is
the beginning of line LINE, then those before, then whatever is written to the file later. Standard library only.
"""

from __future__ import annotations

import os
import re
import sys
import time
from array import array
from collections.abc import Callable, Iterator

CHUNK = 1 << 16  # bytes: larger ones go back to the system and are faulted in anew each time one is lowered, at thrice the cost
LONGEST = 64 << 20  # bytes of a line, at most
MOST = 200_000  # matches
PASS_OVER = (1 << 64) - 1  # everything that was there has been looked at
TOO_MANY = (1 << 64) - 2  # more match than are kept
PERIOD = 0.3  # seconds between looks at a file that may grow

Find = Callable[[bytes, int], tuple[int, int]]  # (data, from) -> (begin, end) of the next match; begin -1: none


def is_literal(pattern: str) -> bool:
    """Whether the pattern means nothing but itself."""
    return not set(pattern) & set("\\.^$*+?{}[]|()")


def folds(pattern: str) -> bool:
    """Whether case does not count: the pattern has no capital letter. The data is lowered then: (?i) is ten times slower."""
    return pattern == pattern.lower()


def finder(pattern: str) -> Find:
    """How to find the next match in bytes, lowered where the pattern `folds`. Raises `re.error`."""
    if is_literal(pattern):
        wanted = pattern.encode()
        size = len(wanted)

        def find(data: bytes, start: int) -> tuple[int, int]:
            at = data.find(wanted, start)
            return at, at + size

        return find
    compiled = re.compile(pattern.encode(), re.MULTILINE)

    def search(data: bytes, start: int) -> tuple[int, int]:
        found = compiled.search(data, start)
        return (found.start(), found.end()) if found else (-1, -1)

    return search


def matching(data: bytes, first: int, find: Find) -> Iterator[int]:
    """Numbers of the matching lines in whole lines of which the first has the number `first`."""
    at, line = 0, first
    while at < len(data):
        begin, end = find(data, at)
        if begin < 0:
            return
        line += data.count(b"\n", at, begin)
        yield line
        at = data.find(b"\n", max(end, begin + 1) - 1)
        if at < 0:
            return
        line += data.count(b"\n", begin, at) + 1
        at += 1


class Scan:
    """One scan of one file."""

    def __init__(self, descriptor: int, pattern: str, send: Callable[[array[int]], None]) -> None:
        self._descriptor = descriptor
        self._find = finder(pattern)
        self._folds = folds(pattern)
        self._send = send
        self._found = 0

    def run(self, offset: int, line: int, end: int | None = None) -> tuple[int, int] | None:
        """Scan from an offset, where a line begins, to `end` or the file's; where it got to, or None after too many."""
        size = CHUNK
        while end is None or offset < end:
            data = os.pread(self._descriptor, size if end is None else min(size, end - offset), offset)
            cut = data.rfind(b"\n") + 1
            if not cut:
                if len(data) < size or size >= LONGEST:
                    return offset, line  # a line that is still being written, or is none
                size *= 8  # a line longer than what was read
                continue
            if not self._take(data[:cut] if cut < len(data) else data, line):
                return None
            line += data.count(b"\n", 0, cut)
            offset += cut  # what was read of the next line is read again: less than it costs to keep
            size = CHUNK
        return offset, line

    def _take(self, data: bytes, line: int) -> bool:
        numbers = array("Q", matching(data.lower() if self._folds else data, line, self._find))
        self._found += len(numbers)
        is_enough = self._found > MOST
        if is_enough:
            numbers.append(TOO_MANY)
        if numbers:
            self._send(numbers)
        return not is_enough


def main(arguments: list[str]) -> int:
    path, pattern, offset, line = arguments[0], arguments[1], int(arguments[2]), int(arguments[3])
    parent = os.getppid()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def send(numbers: array[int]) -> None:
        if sys.byteorder == "big":
            numbers.byteswap()
        sys.stdout.buffer.write(numbers.tobytes())
        sys.stdout.buffer.flush()

    scan = Scan(descriptor, pattern, send)
    place = scan.run(offset, line)
    if place is None or (offset and scan.run(0, 0, offset) is None):
        return 0
    send(array("Q", [PASS_OVER]))
    while os.getppid() == parent:
        time.sleep(PERIOD)
        size = os.fstat(descriptor).st_size
        if size < place[0]:
            return 0  # cut off: the lines are other ones now
        if size > place[0]:
            place = scan.run(*place)
            if place is None:
                return 0
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (OSError, re.error, BrokenPipeError, KeyboardInterrupt):
        sys.exit(1)
