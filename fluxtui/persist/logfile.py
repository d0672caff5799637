"""A log of any size: its tail in a millisecond, and an index of offsets to read any line by number.

A log may hold 5 GB, no newline, NULs, bad UTF-8, a progress bar's carriage returns; it may be truncated, rotated or
deleted while it is open. Whatever it is, what is held stays bounded: the index keeps one number for each MiB.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left, bisect_right
from pathlib import Path

from fluxtui.persist.errors import DamagedError, NotFoundError, StorageError
from fluxtui.persist.files.regular import open_regular, read_at
from fluxtui.persist.files.text import clean, collapse

TAIL_LIMIT = 256 * 1024      # bytes looked at for a tail
CHUNK = 1024 * 1024          # bytes indexed at a time
LINE_LIMIT = 64 * 1024       # bytes of a line that are read
HEAD = 256                   # bytes
SHOWN_LIMIT = 10_000         # characters of a line that are shown

_NEWLINE = re.compile(b"\n")


def tail(path: Path, lines: int, limit: int = TAIL_LIMIT) -> list[str]:
    """The last lines, inert, as far as the last `limit` bytes reach. A line still being written is the last one.

    Raises `NotFoundError` or `StorageError`.
    """
    descriptor = _open(path)
    try:
        size = os.fstat(descriptor).st_size
        start = max(0, size - limit)
        data = _pread(descriptor, limit, start, path)
        if start and os.pread(descriptor, 1, start - 1) != b"\n" and (newline := data.find(b"\n")) >= 0:
            data = data[newline + 1 :]
    finally:
        os.close(descriptor)
    return _shown(data)[-lines:] if lines > 0 else []


def _shown(data: bytes) -> list[str]:
    """Bytes as inert lines; an end without a newline is a line too."""
    if not data:
        return []
    pieces = data.split(b"\n")
    if not pieces[-1]:
        pieces.pop()
    return [_line(piece) for piece in pieces]


def _line(data: bytes) -> str:
    """One line as it is shown: what a progress bar left last, inert."""
    return clean(collapse(data.decode("utf-8", "replace")), SHOWN_LIMIT)


def _open(path: Path) -> int:
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise NotFoundError(f"There is no log {path} yet.") from None
    except DamagedError as error:
        raise StorageError(str(error)) from error
    except OSError as error:
        raise StorageError.of(error, "read", path) from error


def _pread(descriptor: int, count: int, offset: int, path: Path) -> bytes:
    try:
        return read_at(descriptor, count, offset)
    except OSError as error:
        raise StorageError.of(error, "read", path) from error


class LogIndex:
    """Where the lines of a growing log begin: newlines counted by chunks of a MiB, lines read by number.

    Lines are numbered from 0; what follows the last newline counts as one. When the file is truncated, rotated, replaced
    or deleted, the index begins anew and `generation` counts up. Not for two threads at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        self.generation = 0
        self._reset()

    def _reset(self) -> None:
        self._scanned = 0                       # bytes that are indexed
        self._newlines = 0                      # among them
        self._before = [0]                      # newlines before each chunk
        self._tail_start = 0                    # offset behind the last newline
        self._head = b""                        # the first bytes, by which a replaced content is known
        self._chunk: tuple[int, int, list[int]] = (-1, 0, [])   # the last one read: number, bytes, ends of its lines

    @property
    def count(self) -> int:
        """Lines, one still being written included."""
        return self._newlines + self.has_partial

    @property
    def has_partial(self) -> bool:
        """Whether the last line has no newline yet."""
        return self._tail_start < self._scanned

    @property
    def size(self) -> int:
        """Bytes that are indexed so far."""
        return self._scanned

    def update(self, limit: int = 64 * CHUNK) -> bool:
        """Index at most `limit` new bytes; True while there are more. A missing file is an empty log.

        Raises `StorageError` where the file cannot be read.
        """
        if not self._follow():
            return False
        size = self._size_now()
        end = min(size, self._scanned + limit)
        while self._scanned < end:
            boundary = CHUNK - self._scanned % CHUNK
            data = self._pread(min(boundary, end - self._scanned), self._scanned)
            if not data:
                break
            self._take(data)
        return self._scanned < size

    def _take(self, data: bytes) -> None:
        """The next bytes, which cross no border of a chunk."""
        if len(self._head) < HEAD:
            self._head = (self._head + data)[:HEAD]
        last = data.rfind(b"\n")
        if last >= 0:
            self._newlines += data.count(b"\n")
            self._tail_start = self._scanned + last + 1
        self._scanned += len(data)
        if self._scanned % CHUNK == 0:
            self._before.append(self._newlines)

    def _follow(self) -> bool:
        """Open the file that is at the path now; start anew where it is another one, or shorter. False: there is none."""
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except OSError:
            if self._descriptor is not None:
                self.close()
                self._anew()
            return False
        if self._descriptor is not None and (there.st_dev, there.st_ino) != self._identity:
            self.close()
            self._anew()
        if self._descriptor is None:
            try:
                self._descriptor = _open(self._path)
            except NotFoundError:
                return False
            facts = os.fstat(self._descriptor)
            self._identity = (facts.st_dev, facts.st_ino)
        elif self._size_now() < self._scanned or self._pread(len(self._head), 0) != self._head:
            self._anew()
        return True

    def _anew(self) -> None:
        self._reset()
        self.generation += 1

    def _size_now(self) -> int:
        assert self._descriptor is not None
        return os.fstat(self._descriptor).st_size

    def _pread(self, count: int, offset: int) -> bytes:
        assert self._descriptor is not None
        return _pread(self._descriptor, count, offset, self._path)

    def read(self, first: int, count: int) -> list[str]:
        """Lines by number, inert; of a very long one the beginning, or what its last carriage return left.

        Fewer where the log has no more, or was cut meanwhile. Raises `StorageError`.
        """
        if self._descriptor is None:
            return []
        found = []
        start = self.offset_of(first)
        for line in range(max(0, first), min(first + count, self.count)):
            end = self.offset_of(line + 1)
            if end < start:
                break  # it was cut and written anew since it was indexed; the next update begins anew
            found.append(self._text(start, end))
            start = end
        return found

    def _text(self, start: int, end: int) -> str:
        length = end - start
        data = self._pread(min(length, LINE_LIMIT), start)
        is_cut = length > LINE_LIMIT
        if is_cut and b"\r" in data:
            data = self._pread(LINE_LIMIT, end - LINE_LIMIT)
            is_cut = b"\r" not in data  # else the last drawing of the progress bar is whole
        text = _line(data[:-1] if data.endswith(b"\n") else data)
        return text + "…" if is_cut and not text.endswith("…") else text

    def offset_of(self, line: int) -> int:
        """Offset of the first byte of a line; the size where there is no such line. Raises `StorageError`."""
        if line <= 0:
            return 0
        if line > self._newlines:
            return self._scanned
        chunk = bisect_left(self._before, line) - 1
        ends = self._ends(chunk)
        at = line - self._before[chunk] - 1
        return chunk * CHUNK + ends[at] if at < len(ends) else self._scanned

    def line_at(self, offset: int) -> int:
        """Number of the line that holds the byte at the offset; the last line's where it lies beyond."""
        if offset >= self._scanned or self._descriptor is None:
            return max(0, self.count - 1)
        chunk = max(0, offset) // CHUNK
        return self._before[chunk] + bisect_right(self._ends(chunk), max(0, offset) - chunk * CHUNK)

    def _ends(self, chunk: int) -> list[int]:
        """Where the lines that end in a chunk end: offsets behind their newlines, from the chunk's beginning."""
        length = min(CHUNK, self._scanned - chunk * CHUNK)
        if self._chunk[:2] != (chunk, length):
            data = self._pread(length, chunk * CHUNK)
            self._chunk = (chunk, length, [match.end() for match in _NEWLINE.finditer(data)])
        return self._chunk[2]

    def close(self) -> None:
        """Give the descriptor back; `update` opens the file again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
