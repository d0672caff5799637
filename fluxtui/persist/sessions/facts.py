"""Gathers what the machine says right now about a session (/proc, its lock, its product), for `state.derive`.

Little is asked, so that a thousand sessions are looked at in a blink: only active ones have their lock and processes
looked up, and a product is hashed only where its times are not those of its proof, once for each state of it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from fluxtui.persist import process
from fluxtui.persist.errors import DamagedError, StorageError
from fluxtui.persist.files.hash_cache import sha256_of
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import ACTIVE, ProcessIdentity, Record
from fluxtui.persist.sessions.state import Facts, Output

_BEAT_LATE = 10.0       # seconds; a look without memory takes a late beat for the time spent in state D

_waiting_since: dict[ProcessIdentity, float] = {}       # state D first seen; a front that lives long remembers
_beats: dict[str, tuple[str, datetime | None, float | None]] = {}   # nonce of an attempt, its beat, when that was seen to change


@dataclass(frozen=True, slots=True)
class Here:
    """This machine at this moment: looked up once for all sessions."""

    now: datetime
    host: str
    boot_id: str

    @staticmethod
    def look() -> Here:
        return Here(datetime.now(UTC), os.uname().nodename, process.boot_id())


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something of a session cannot be read, each one sentence; empty where it can."""

    spec: str = ""
    record: str = ""    # the newest one
    attempts: str = ""  # their folder
    is_spec_kept: bool = False  # its keeper has a copy of the spec


def gather(folder: SessionFolder, record: Record | None, trouble: Trouble, here: Here) -> Facts:
    """The facts that `state.derive` needs beside the record."""
    keeper_state: str | None = None
    trainer_states: tuple[str, ...] = ()
    storage = 0.0
    beat_seconds = None if record is None else _beat_seconds(str(folder.path), record)
    lock_held, lock_unseen = _lock_of(folder, record) if record is None or record.status in ACTIVE else (False, "")
    if lock_held and record is not None:
        keeper_state = _state_of(record.keeper) if record.keeper else None
        alive = [(one, _state_of(one)) for one in (*record.ranks, *_prover(record))]
        trainer_states = tuple(letter for _, letter in alive if letter)
        waiting = [one for one, letter in alive if letter == "D"]
        if keeper_state == "D" and record.keeper:
            waiting.append(record.keeper)
        storage = _storage_seconds(waiting, record, here.now, beat_seconds)
    return Facts(
        name=folder.name,
        now=here.now,
        host=here.host,
        boot_id=here.boot_id,
        lock_held=lock_held,
        lock_unseen=lock_unseen,
        is_new_keeper=lock_held and record is not None and _is_anothers(folder, record),
        keeper_state=keeper_state,
        trainer_states=trainer_states,
        beat_seconds=beat_seconds,
        storage_seconds=storage,
        output=output_of(folder, record) if record is not None and record.status == "completed" else "",
        unreadable=trouble.spec or trouble.record,
        unlisted=trouble.attempts,
        is_spec_readable=not trouble.spec,
        is_spec_kept=trouble.is_spec_kept,
    )


def _beat_seconds(session: str, record: Record) -> float | None:
    """How long ago this process saw the beat of the session's attempt change; None where it has not yet."""
    if record.status not in ACTIVE:
        _beats.pop(session, None)
        return None
    nonce, beat, changed = _beats.get(session, ("", None, None))
    moment = time.monotonic()
    if nonce == record.nonce and beat != record.beat_at:
        changed = moment
    elif nonce != record.nonce:
        changed = None
    _beats[session] = (record.nonce, record.beat_at, changed)
    return None if changed is None else moment - changed


def _prover(record: Record) -> tuple[ProcessIdentity, ...]:
    return () if record.prover is None else (record.prover,)


def _lock_of(folder: SessionFolder, record: Record | None) -> tuple[bool, str]:
    """Whether the session's lock is held, and why that cannot be seen where it cannot: then a keeper that lives is believed."""
    try:
        return Lock.held(folder.lock_file), ""
    except StorageError as error:
        if record is not None and record.keeper is not None and process.is_alive(record.keeper):
            return True, ""
        return False, str(error)


def _is_anothers(folder: SessionFolder, record: Record) -> bool:
    """Whether the lock is held by a keeper that has not written its own record yet."""
    holder = Lock.holder(folder.lock_file)
    return bool(holder) and record.keeper is not None and holder != record.keeper.run_id


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


def _storage_seconds(waiting: Iterable[ProcessIdentity], record: Record, now: datetime, beat_seconds: float | None) -> float:
    """How long the longest of these has been in state D, as far as this process has seen; or since the last beat, if late."""
    present = set(waiting)
    own = {*record.ranks, record.prover, record.keeper}
    for identity in [one for one in _waiting_since if one not in present and one in own]:
        del _waiting_since[identity]
    if not present:
        return 0.0
    moment = time.monotonic()
    longest = max(moment - _waiting_since.setdefault(identity, moment) for identity in present)
    late = beat_seconds  # by this process's own watch, where it has seen one; the clock may have been set
    if late is None:
        late = (now - record.beat_at).total_seconds() if record.beat_at else 0.0
    return max(longest, late if late > _BEAT_LATE else 0.0)


def output_of(folder: SessionFolder, record: Record) -> Output:
    """Whether the product is the file that was proven: by what the system said of it then, else by its hash.

    Its times are no proof of sameness where they differ from those of the proof, whichever way: a copy of the home has others,
    and so has a file that was written to.
    """
    proof = record.proof
    path = folder.product
    try:
        facts = os.lstat(path)
        if proof is None or not stat.S_ISREG(facts.st_mode) or facts.st_size != proof.size:
            return "different"
        if (facts.st_mtime_ns, facts.st_ctime_ns) == (proof.mtime_ns, proof.ctime_ns):
            return "ok"
        return "ok" if sha256_of(path) == proof.sha256 else "different"
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except DamagedError:
        return "different"
    except OSError as error:
        return "denied" if error.errno in (errno.EACCES, errno.EPERM) else "unreadable"
