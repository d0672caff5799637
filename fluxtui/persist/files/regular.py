"""Opening files that somebody may have swapped for a FIFO, a device, a link or a gigabyte of garbage."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fluxtui.persist.errors import DamagedError

BLOCK = 1 << 20  # bytes read at a time


def open_regular(path: Path, *, follow_links: bool = False, in_folder: int | None = None) -> int:
    """A read-only descriptor of a regular file; never blocks, whatever lies at `path` (in the folder of that descriptor).

    Raises DamagedError where it is no regular file, and OSError as the system answers it.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, dir_fd=in_folder)
    except OSError as error:
        # a link answers ELOOP, a socket ENXIO, a device without a driver ENXIO or ENODEV
        if _is_irregular(path, follow_links, in_folder):
            raise _irregular(path, follow_links) from error
        raise
    return _must_be_regular(path, descriptor, follow_links)


def open_for_writing(path: Path, flags: int = os.O_WRONLY) -> int:
    """A descriptor of a regular file of ours to write to, made (0600) where it is missing; never blocks, never follows a link.

    `flags` are O_WRONLY or O_RDWR, and O_APPEND. Raises DamagedError where it is no regular file, and OSError.
    """
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        # a link answers ELOOP, a folder EISDIR, a FIFO that nobody reads ENXIO
        if _is_irregular(path, follow_links=False):
            raise _irregular(path) from error
        raise
    os.set_blocking(_must_be_regular(path, descriptor), True)
    return descriptor


def _must_be_regular(path: Path, descriptor: int, is_users: bool = False) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(path, is_users)
    return descriptor


def _irregular(path: Path, is_users: bool = False) -> DamagedError:
    """`is_users`: a file that a user named, and that links may lead to; else one of ours, in whose place something lies."""
    return DamagedError(f"{path} is not a regular file; {'name one that is' if is_users else 'move it away'}")


def _is_irregular(path: Path, follow_links: bool, in_folder: int | None = None) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path, dir_fd=in_folder, follow_symlinks=follow_links).st_mode)
    except OSError:
        return False


def read_regular(path: Path, limit: int, *, follow_links: bool = False, in_folder: int | None = None) -> bytes:
    """The whole file, where it is regular and at most `limit` bytes; else DamagedError. OSError as the system answers it."""
    descriptor = open_regular(path, follow_links=follow_links, in_folder=in_folder)
    try:
        pieces: list[bytes] = []
        room = limit + 1
        while room and (piece := os.read(descriptor, min(room, BLOCK))):
            pieces.append(piece)
            room -= len(piece)
    finally:
        os.close(descriptor)
    if not room:
        what_next = "name another" if follow_links else "move it away"
        raise DamagedError(f"{path} is larger than {limit} bytes, which no such file is; {what_next}")
    return b"".join(pieces)


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """`count` bytes from `offset`, fewer only where the file ends, though one read may give fewer (FUSE). Raises OSError."""
    pieces: list[bytes] = []
    while count and (piece := os.pread(descriptor, count, offset)):
        pieces.append(piece)
        count, offset = count - len(piece), offset + len(piece)
    return b"".join(pieces)


def blocks(descriptor: int, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
    """The bytes from `start` up to `end` (None: the end of the file), at most a MiB each.

    A block is valid until the next is asked for. Raises DamagedError for a file that ends before `end`.
    """
    buffer = memoryview(bytearray(BLOCK))
    position = start
    while end is None or position < end:
        want = BLOCK if end is None else min(BLOCK, end - position)
        got = os.preadv(descriptor, [buffer[:want]], position)
        if not got and end is not None:
            raise DamagedError(f"the file ended at {position} bytes instead of {end}; it is being changed")
        if not got:
            return
        yield buffer[:got]
        position += got
