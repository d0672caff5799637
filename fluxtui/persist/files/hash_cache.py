"""The SHA-256 of a large file, cached until the file changes: `ls` may ask for a thousand of them.

A state is what the system says of it: device, inode, size, and both times to the nanosecond. The time of change (ctime) is the
system's own: `touch` sets the other one back, not this one. Hashes are remembered in memory and in the machine's
runtime folder, for a command that looks once and leaves; there, because inode and ctime mean nothing on another machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

from fluxtui.persist.errors import DamagedError, StorageError
from fluxtui.persist.files.durable import temporary_name
from fluxtui.persist.files.regular import blocks, open_for_writing, open_regular, read_regular
from fluxtui.persist.home import runtime_folder

_SETTLED_SECONDS = 0.1  # two writes within a tick of the file system's clock leave the same times
_LIMIT = 512  # bytes of a remembered state

_State = tuple[int, ...]
_hashed: dict[str, tuple[_State, str]] = {}  # path -> the state it was hashed in, and the hash


def sha256_of(path: Path) -> str:
    """The hash, in hexadecimal. Raises DamagedError (not a regular file, or written to meanwhile) and OSError."""
    facts = os.lstat(path)
    state = _state_of(facts)
    known = _hashed.get(str(path)) or _recalled(path)
    if known is not None and known[0] == state:
        _hashed[str(path)] = known
        return known[1]
    descriptor = open_regular(path)
    digest = hashlib.sha256()
    try:
        for block in blocks(descriptor):
            digest.update(block)
        if _state_of(os.fstat(descriptor)) != state:
            raise DamagedError(f"{path} was written to while it was read")
    finally:
        os.close(descriptor)
    found = digest.hexdigest()
    if abs(time.time() - facts.st_ctime) > _SETTLED_SECONDS:
        _hashed[str(path)] = (state, found)
        _remember(path, state, found)
    return found


def _state_of(facts: os.stat_result) -> _State:
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _place(path: Path) -> Path:
    return runtime_folder() / f"hashed-{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}"


def _recalled(path: Path) -> tuple[_State, str] | None:
    try:
        *state, found = read_regular(_place(path), _LIMIT).decode("ascii").split()
        return tuple(int(number) for number in state), found
    except (OSError, DamagedError, StorageError, ValueError):
        return None


def _remember(path: Path, state: _State, found: str) -> None:
    """Whole or not at all, but not synced: what a power cut takes is hashed again."""
    with contextlib.suppress(StorageError, OSError):
        place = _place(path)
        temporary = place.with_name(temporary_name())
        with open(open_for_writing(temporary), "wb") as file:
            file.write(f"{' '.join(str(number) for number in state)} {found}\n".encode())
        os.replace(temporary, place)
