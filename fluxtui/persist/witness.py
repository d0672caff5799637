"""What the machine says right now about a session's processes and product: /proc, the lock, the size of a file.

Little is asked, so that a thousand sessions are looked at in a blink: only active ones have their lock and processes
looked up, and a product is hashed only where it was written to after its proof.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fluxtui.persist import process
from fluxtui.persist.errors import DamagedError, StorageError
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.lock import Lock
from fluxtui.persist.record import ACTIVE, ProcessIdentity, Record
from fluxtui.persist.regular import blocks, open_regular
from fluxtui.persist.state import Facts, Output

_MTIME_SLACK = 2.0      # seconds that a product's time may lie after its proof: clocks of file systems are coarse
_BEAT_LATE = 10.0       # seconds; a look without memory takes a late beat for the time spent in state D

_waiting_since: dict[ProcessIdentity, float] = {}       # state D first seen; a front that lives long remembers
_hashed: dict[tuple[str, int, int, int], str] = {}      # (path, inode, mtime, size) -> sha256


@dataclass(frozen=True, slots=True)
class Here:
    """This machine at this moment: looked up once for all sessions."""

    now: datetime
    host: str
    boot_id: str

    @staticmethod
    def look() -> Here:
        return Here(datetime.now(UTC), os.uname().nodename, process.boot_id())


def gather(folder: SessionFolder, record: Record | None, unreadable: str, is_spec_readable: bool, here: Here) -> Facts:
    """The facts that `state.derive` needs beside the record."""
    keeper_state: str | None = None
    trainer_states: tuple[str, ...] = ()
    storage = 0.0
    lock_held = _is_locked(folder) if record is None or record.status in ACTIVE else False
    if lock_held and record is not None:
        keeper_state = _state_of(record.keeper) if record.keeper else None
        alive = [(rank, _state_of(rank)) for rank in record.ranks]
        trainer_states = tuple(letter for _, letter in alive if letter)
        waiting = [rank for rank, letter in alive if letter == "D"]
        if keeper_state == "D" and record.keeper:
            waiting.append(record.keeper)
        storage = _storage_seconds(waiting, record, here.now)
    return Facts(
        name=folder.name,
        now=here.now,
        host=here.host,
        boot_id=here.boot_id,
        lock_held=lock_held,
        keeper_state=keeper_state,
        trainer_states=trainer_states,
        storage_seconds=storage,
        output=output_of(folder, record) if record is not None and record.status == "completed" else "",
        unreadable=unreadable,
        is_spec_readable=is_spec_readable,
    )


def _is_locked(folder: SessionFolder) -> bool:
    try:
        return Lock.held(folder.lock_file)
    except StorageError:
        return False


def _state_of(identity: ProcessIdentity) -> str | None:
    """The worst state letter of the process's threads (T, then D); None where that very process is not to be seen.

    Its run id need not match: another user's environment cannot be read, and nothing is signalled by what is said here.
    """
    there = process.identify(identity.pid)
    if there is None or (there.start_ticks, there.boot_id) != (identity.start_ticks, identity.boot_id):
        return None
    try:
        threads = os.listdir(f"/proc/{identity.pid}/task")
    except OSError:
        return None
    letters = [letter for thread in threads[:512] if (letter := process.state_letter(int(thread)))]
    return next((letter for letter in "TtD" if letter in letters), letters[0] if letters else None)


def _storage_seconds(waiting: Iterable[ProcessIdentity], record: Record, now: datetime) -> float:
    """How long the longest of these has been in state D, as far as this process has seen; or since the last beat, if late."""
    present = set(waiting)
    for identity in [one for one in _waiting_since if one not in present and one in {*record.ranks, record.keeper}]:
        del _waiting_since[identity]
    if not present:
        return 0.0
    moment = time.monotonic()
    longest = max(moment - _waiting_since.setdefault(identity, moment) for identity in present)
    late = (now - record.beat_at).total_seconds() if record.beat_at and record.beat_at.tzinfo else 0.0
    return max(longest, late if late > _BEAT_LATE else 0.0)


def output_of(folder: SessionFolder, record: Record) -> Output:
    """Whether the product is the file that was proven: by size, and by hash where it was written to afterwards."""
    proof = record.proof
    path = folder.product
    try:
        facts = os.lstat(path)
    except OSError:
        return "missing"
    if proof is None or facts.st_size != proof.size:
        return "different"
    if proof.at is not None and facts.st_mtime <= proof.at.timestamp() + _MTIME_SLACK:
        return "ok"
    return "ok" if _sha256(path, facts) == proof.sha256 else "different"


def _sha256(path: Path, facts: os.stat_result) -> str:
    """The file's hash, remembered while inode, time and size stay; empty where it cannot be read."""
    key = (str(path), facts.st_ino, facts.st_mtime_ns, facts.st_size)
    if key not in _hashed:
        try:
            descriptor = open_regular(path)
        except (OSError, DamagedError):
            return ""
        digest = hashlib.sha256()
        try:
            for block in blocks(descriptor):
                digest.update(block)
        except (OSError, DamagedError):
            return ""
        finally:
            os.close(descriptor)
        _hashed[key] = digest.hexdigest()
    return _hashed[key]
