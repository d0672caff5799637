"""A whole file or folder, durably: temporary name, all bytes, fsync, rename, fsync of the folder.

An fsync that failed is never tried again on that file: the kernel may have dropped the pages and would say yes the
second time. The temporary file is removed and the error raised; a later write begins with a new file.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from fluxtui.persist.errors import StorageError

Buffer = bytes | bytearray | memoryview
_TEMPORARY = re.compile(r"\.tmp-(\d+)-[0-9a-f]{16}")
_WRITE_AT_ONCE = 64 << 20  # bytes; a write of Linux moves at most 2 GiB, and a kill between two is soon seen
_LEFT_OVER_SECONDS = 60.0


def write_file(path: Path, data: Buffer | Iterable[Buffer], mode: int = 0o600) -> None:
    """Put a whole file at `path`: after return it is there after a power cut, before it the old one is.

    `mode` holds whatever the umask. Raises StorageError, and then leaves no temporary file behind.
    """
    temporary = path.with_name(temporary_name())
    try:
        create_file(temporary, data, mode)
        os.replace(temporary, path)
    except OSError as error:
        _unlink_quietly(temporary)
        raise StorageError.of(error, "write", path) from error
    except BaseException:
        _unlink_quietly(temporary)
        raise
    fsync_folder(path.parent)


def create_file(
    path: Path, data: Buffer | Iterable[Buffer], mode: int = 0o600, seen: Callable[[memoryview], None] | None = None
) -> None:
    """Make a file that is not there yet, with all its bytes synced; `seen` is given each block, to hash it on the way.

    The folder is not synced. Raises OSError and leaves what it made.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        for buffer in [data] if isinstance(data, Buffer) else data:
            view = memoryview(buffer).cast("B")
            for start in range(0, len(view), _WRITE_AT_ONCE):
                block = view[start : start + _WRITE_AT_ONCE]
                if seen is not None:
                    seen(block)
                write_all(descriptor, block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: Buffer) -> None:
    """Every byte, however few a write takes: FUSE may take some, a full disk takes the last that fit. Raises OSError."""
    block = memoryview(data)
    while block:
        block = block[os.write(descriptor, block) :]


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises StorageError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError.of(error, "sync the folder", path) from error


def make_folder(path: Path, *, may_exist: bool = True) -> bool:
    """Make one private folder (0700 whatever the umask); whether it was missing. Its own name is not synced.

    Raises FileExistsError, where it may not exist; StorageError.
    """
    try:
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)
    except FileExistsError as error:
        if not may_exist:
            raise
        _must_be_a_folder(path, error)
        return False
    except OSError as error:
        raise StorageError.of(error, "make the folder", path) from error
    return True


def make_own_folder(path: Path) -> bool:
    """As `make_folder`, but what is there already must be no link and nobody else's: what we delete in it is ours alone."""
    if make_folder(path):
        return True
    must_be_own_folder(path)
    return False


def must_be_own_folder(path: Path) -> None:
    """Raises StorageError where the folder is missing, a link, or another user's."""
    try:
        found = os.lstat(path)
    except OSError as error:
        raise StorageError.of(error, "look at", path) from error
    if stat.S_ISLNK(found.st_mode):
        raise StorageError(f"{path} is a link, and a session never leads out of its folder; put the folder itself in its place")
    if not stat.S_ISDIR(found.st_mode):
        raise StorageError(f"{path} is in the way of a folder of FluxTUI's; move it")
    if found.st_uid != os.geteuid():
        raise StorageError(f"{path} belongs to user {found.st_uid}, not to you; make it yours with chown, or move it away")


def _must_be_a_folder(path: Path, cause: OSError) -> None:
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        is_folder = False  # a dangling link
    except OSError as error:
        raise StorageError.of(error, "look at", path) from error
    if not is_folder:
        raise StorageError(f"{path} is in the way of a folder of FluxTUI's; move it") from cause


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a whole folder, without following links. It may be gone already. Raises StorageError."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError.of(error, "remove", path) from error


def temporary_name() -> str:
    """A name that no listing of ours shows, and that `sweep_temporaries` knows."""
    return f".tmp-{os.getpid()}-{secrets.token_hex(8)}"


def sweep_temporaries(folder: Path, older_than: float = _LEFT_OVER_SECONDS) -> None:
    """Remove temporary *files* in `folder` whose writers died. One younger than so many seconds, or of a living pid, stays."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or not entry.is_file(follow_symlinks=False) or os.path.exists(f"/proc/{match[1]}"):
                continue
            if not older_than or time.time() - entry.stat(follow_symlinks=False).st_mtime > older_than:
                os.unlink(entry.path)


def _unlink_quietly(path: Path) -> None:
    # the error that brought us here is the one to tell
    with contextlib.suppress(OSError):
        path.unlink()
