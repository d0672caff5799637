"""The folder of the caches, `HOME/cache`: where entries lie, which are in use, and how it is kept within its bound.

    cache/latents/3f/3f….safetensors      an entry: KIND/first two digits/KEY; its modification time is its last use
    cache/text/…
    cache/leases/PID-RANDOM               the keys that a running trainer will read, under a lock it holds while it lives
    cache/plans.json                      what plans measured of shapes (`engine.memory.plan_cache`); may go at any time
    cache/lock                            held for a moment by whoever publishes a lease or evicts

Entries are keyed by content and replaced whole, so two writers of one entry do no harm. What a live lease names is never
evicted; a trainer publishes its lease before it looks which entries are there, so that none vanishes in between.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxtui.persist.errors import DamagedError, StorageError, TimedOutError
from fluxtui.persist.files.durable import make_folder, sweep_temporaries, temporary_name
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.files.regular import read_regular

KINDS = ("latents", "text", "masks")
LIMIT = 50 << 30                # bytes; a FLUX.1 caption takes 4 MiB, a picture of 1024 x 1024 takes 1 MiB
_SUFFIX = ".safetensors"
_LEASE_LIMIT = 256 << 20        # bytes of a lease file; a million keys have 66 MB
_WAIT_SECONDS = 30.0            # for the folder's lock, which is held for as long as an eviction takes


@dataclass(frozen=True, slots=True)
class Usage:
    """What the caches take."""

    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    bytes: int
    used: float     # modification time, seconds


def entry_path(folder: Path, kind: str, key: str) -> Path:
    """Where the entry of this key lies."""
    return folder / kind / key[:2] / f"{key}{_SUFFIX}"


def make(folder: Path) -> None:
    """Makes the folders that are missing. Raises StorageError."""
    for path in (folder, folder / "leases", *(folder / kind for kind in KINDS)):
        make_folder(path)


def usage(folder: Path) -> Usage:
    """Entries and bytes of all caches."""
    entries = list(_entries(folder))
    return Usage(len(entries), sum(entry.bytes for entry in entries))


def prune(folder: Path, limit: int) -> Usage:
    """Removes the entries unused for longest until at most `limit` bytes are left; tells what was removed.

    Entries that a running session has leased stay, whatever the limit. Raises StorageError, TimedOutError.
    """
    make(folder)
    with _folder_lock(folder):
        leased = _leased(folder)
        entries = sorted(_entries(folder), key=lambda entry: (entry.used, entry.path))
        total = sum(entry.bytes for entry in entries)
        removed = freed = 0
        for entry in entries:
            if total - freed <= limit:
                break
            if entry.path.name.removesuffix(_SUFFIX) in leased:
                continue
            entry.path.unlink(missing_ok=True)
            removed, freed = removed + 1, freed + entry.bytes
    for kind in KINDS:
        for shelf in _shelves(folder / kind):
            sweep_temporaries(shelf)
    return Usage(removed, freed)


def lease(folder: Path, keys: Iterable[str]) -> Lock:
    """Keeps these entries from being evicted until the lock is released or the process ends.

    Raises StorageError, TimedOutError where the folder's lock stays taken.
    """
    make(folder)
    # a name of its own: a trainer that was killed and hangs in the kernel still holds its lease, and must hold up nobody
    path = folder / "leases" / f"{os.getpid()}-{secrets.token_hex(8)}"
    with _folder_lock(folder):
        lock = _patiently(path)
        with open(path, "wb", opener=_private) as file:     # in place: the lock is on this very file
            file.write("\n".join(sorted(keys)).encode())
    return lock


def _leased(folder: Path) -> set[str]:
    """Keys of all live leases; the files of dead ones are removed."""
    found: set[str] = set()
    for entry in list(os.scandir(folder / "leases")):
        path = Path(entry.path)
        if Lock.held(path):
            with contextlib.suppress(FileNotFoundError, DamagedError):
                found.update(read_regular(path, _LEASE_LIMIT).decode("ascii", "replace").split("\n"))
        else:
            path.unlink(missing_ok=True)
    return found


def _entries(folder: Path) -> Iterator[_Entry]:
    for kind in KINDS:
        for shelf in _shelves(folder / kind):
            with contextlib.suppress(FileNotFoundError):    # another process evicts
                for entry in list(os.scandir(shelf)):
                    if entry.name.endswith(_SUFFIX):
                        status = entry.stat(follow_symlinks=False)
                        yield _Entry(Path(entry.path), status.st_size, status.st_mtime)


def _shelves(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    lock = _patiently(folder / "lock")
    try:
        yield
    finally:
        lock.release()


def _patiently(path: Path) -> Lock:
    end = time.monotonic() + _WAIT_SECONDS
    while (lock := Lock.take(path)) is None:
        if time.monotonic() > end:
            raise TimedOutError(f"{path} is held by another process for over {_WAIT_SECONDS:.0f} s; end it, then try again")
        time.sleep(0.02)
    return lock


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def write_entry(path: Path, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
    """Puts a whole entry at `path`, or none: temporary name and rename, not synced (a torn one is found and made again)."""
    temporary = path.with_name(temporary_name())
    try:
        make_folder(path.parent)
        with open(temporary, "xb", opener=_private) as file:
            for piece in pieces:
                file.write(piece)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageError.of(error, "write", path) from error
