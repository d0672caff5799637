"""Locks that die with their holder: open-file-description locks on a file that is never unlinked.

Liveness in FluxTUI is such a lock, never a pid. The descriptor is closed on exec; a process that forks without exec would
share the lock with its child, so a keeper never does. A file system that cannot lock gets its lock in the runtime folder,
named by the hash of the path.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import struct
import time
from pathlib import Path

from fluxtui.persist.errors import StorageError
from fluxtui.persist.home import runtime_folder

_FLOCK = "hhqqi4x"  # struct flock of a 64-bit Linux
_CANNOT_LOCK = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
_TAKEN = frozenset({errno.EAGAIN, errno.EACCES})
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_REFRESH_SECONDS = 86400.0
_HOLDER_LIMIT = 64  # bytes
_NO_LOCK = "{path} is not a regular file, so it cannot be a lock; remove it"


class Lock:
    """A held lock. Made by `Lock.take` only; freed by `release`, and by the end of the process, however it ends."""

    __slots__ = ("_descriptor", "_stand_in", "path")

    def __init__(self, path: Path, descriptor: int, stand_in: int | None) -> None:
        self.path = path
        self._descriptor = descriptor  # of the file at `path`; carries the lock unless there is a stand-in
        self._stand_in = stand_in      # of the file in the runtime folder, where the file system cannot lock

    @classmethod
    def take(cls, path: Path, holder: str = "") -> Lock | None:
        """Take the lock, making its file (0600) where it is missing; None where somebody holds it. Raises StorageError.

        `holder` stands in the file before anybody sees the lock as held: nobody takes the last holder's word for this one's.
        """
        try:
            while True:
                descriptor = _open(path, os.O_RDWR | os.O_CREAT)
                try:
                    taken, stand_in = _lock(path, descriptor, holder)
                except BaseException:
                    os.close(descriptor)
                    raise
                if not taken:
                    os.close(descriptor)
                    return None
                lock = cls(path, descriptor, stand_in)
                try:
                    if lock.still_at(path):
                        return lock
                except StorageError:
                    lock.release()
                    raise
                lock.release()  # the file was replaced between opening and locking
        except OSError as error:
            raise StorageError.of(error, "lock", path) from error

    @staticmethod
    def held(path: Path) -> bool:
        """Whether somebody holds the lock, this process included. Takes and makes nothing. Raises StorageError."""
        try:
            descriptor = _open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError.of(error, "look at the lock", path) from error
        try:
            return _is_locked(descriptor)
        except OSError as error:
            if error.errno in _CANNOT_LOCK:
                return Lock.held(_stand_in_path(path)) if path != _stand_in_path(path) else False
            raise StorageError.of(error, "look at the lock", path) from error
        finally:
            os.close(descriptor)

    @staticmethod
    def holder(path: Path) -> str:
        """What the holder wrote of itself, or the last one did; "" where nothing can be read, or nothing was said."""
        with contextlib.suppress(OSError, StorageError):
            descriptor = _open(path, os.O_RDONLY)
            try:
                return os.read(descriptor, _HOLDER_LIMIT).decode("ascii", "replace").strip()
            finally:
                os.close(descriptor)
        return ""

    def still_at(self, path: Path) -> bool:
        """Whether `path` is still the very file that is locked: not removed, not replaced.

        Raises StorageError where the disk does not say: then nobody knows, and it is to be asked again.
        """
        try:
            mine = os.fstat(self._descriptor)
            there = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StorageError.of(error, "look at the lock", path) from error
        if time.time() - mine.st_mtime > _REFRESH_SECONDS:
            with contextlib.suppress(OSError):  # a disk that turned read-only keeps the file all the same
                os.utime(self._descriptor)  # programs that tidy /tmp go by age
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def release(self) -> None:
        """Give the lock back; the file stays. May be called twice."""
        descriptors = (self._stand_in, self._descriptor)
        self._descriptor, self._stand_in = -1, None
        for descriptor in descriptors:
            if descriptor is not None and descriptor >= 0:
                with contextlib.suppress(OSError):  # the holder's name was not kept (NFS says so here); closed it is all the same
                    os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | _FLAGS, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # a link, a folder, a socket
            raise StorageError(_NO_LOCK.format(path=path)) from error
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise StorageError(_NO_LOCK.format(path=path))


def _lock(path: Path, descriptor: int, holder: str) -> tuple[bool, int | None]:
    """Whether the lock was got, and the descriptor in the runtime folder where one was needed."""
    try:
        return _enter(descriptor, descriptor, holder), None
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
    stand_in = _open(_stand_in_path(path), os.O_RDWR | os.O_CREAT)
    try:
        taken = _enter(stand_in, descriptor, holder)
    except BaseException:
        os.close(stand_in)
        raise
    if not taken:
        os.close(stand_in)
        return False, None
    return True, stand_in


def _enter(descriptor: int, signed: int, holder: str) -> bool:
    """All but the first byte, which keeps others out; the name; the first byte, by which the lock is seen to be held."""
    if not _try_lock(descriptor, 1, 0):
        return False
    if holder:
        _sign(signed, holder)
    return _try_lock(descriptor, 0, 1)


def _sign(descriptor: int, holder: str) -> None:
    """Written over the last name before the file is cut, so that a full disk has room for it. Not synced."""
    data = holder.encode("ascii")[:_HOLDER_LIMIT]
    with contextlib.suppress(OSError):  # no room all the same: then nothing is said, and nothing wrong
        os.ftruncate(descriptor, os.pwrite(descriptor, data, 0))


def _try_lock(descriptor: int, start: int, length: int) -> bool:
    """Lock `length` bytes from `start`; 0: all that follow."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _is_locked(descriptor: int) -> bool:
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _stand_in_path(path: Path) -> Path:
    # the parent is resolved, so that a link to the home and the home itself share their locks
    real = path.parent.resolve() / path.name
    return runtime_folder() / f"lock-{hashlib.sha256(os.fsencode(real)).hexdigest()[:32]}"
