"""The record on disk, written by its keeper alone: transitions synced, of beats only the bytes.

A transition that the disk refuses is kept and tried again, first with the room that the reserve file gives up; what the
keeper knows of an outcome is never lost to a full disk while the keeper lives.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from fluxtui.engine.keeper.clock import Watch, wall
from fluxtui.engine.keeper.session_log import Log
from fluxtui.persist.errors import DamagedError, StorageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import make_own_folder, must_be_own_folder
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.files.regular import open_for_writing
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import TRANSITIONS, Acknowledgement, Record, Status

RESERVE = 64 * 1024  # bytes
BEAT = 5.0  # seconds between two writes where nothing changed
PROGRESS = 1.0  # seconds between two writes where something did
ACKS = 32  # of the last requests


class SessionGoneError(Exception):
    """The session's folder was removed, or is another one now: nothing may be written any more.

    No `FluxTUIError`: whoever catches those goes on, and a keeper without its session must not.
    """


class Journal:
    """The record of the present attempt."""

    def __init__(self, folder: SessionFolder, lock: Lock, log: Log, watch: Watch) -> None:
        self._folder, self._lock, self._log, self._watch = folder, lock, log, watch
        self._record: Record | None = None
        self._is_dirty = False  # something changed since the last write
        self._is_owed = False  # a synced write failed and is due again
        self._written = -BEAT
        self._pause = PROGRESS  # between two writes where something did change
        self._is_lock_unseen = False  # the disk does not say whether the lock's path is still its file

    @property
    def record(self) -> Record:
        assert self._record is not None, "no attempt was begun"
        return self._record

    @property
    def has_begun(self) -> bool:
        return self._record is not None

    @property
    def is_owed(self) -> bool:
        """True while the last transition is not on disk."""
        return self._is_owed

    def begin(self, record: Record) -> None:
        """The first write of an attempt: raises `StorageError` where it cannot be made, and then nothing was begun."""
        assert record.status == "queued", record.status
        self._make_reserve()
        self.check_lock()
        record = msgspec.structs.replace(record, beat_at=wall())
        path = self._folder.attempt_file(record.attempt)
        must_be_own_folder(path.parent)
        try:
            toml.write(path, record)
        except StorageError:
            with suppress(OSError):
                path.unlink()  # it may have got its name before the disk failed: nobody keeps that attempt
            raise
        self._record, self._written = record, self._watch.now()
        self._is_dirty = self._is_owed = False

    def transition(self, status: Status, **changes: Any) -> None:  # noqa: ANN401  (fields of Record)
        """To another status, synced. A step that `TRANSITIONS` does not know is a mistake of ours."""
        assert status in TRANSITIONS.get(self.record.status, ()), f"{self.record.status} -> {status}"
        self._record = msgspec.structs.replace(self.record, status=status, **changes)
        self._write_synced()

    def update(self, **changes: Any) -> None:  # noqa: ANN401
        """What a beat will carry; written within a second."""
        if any(getattr(self.record, key) != value for key, value in changes.items()):
            self._record = msgspec.structs.replace(self.record, **changes)
            self._is_dirty = True

    def sync(self, **changes: Any) -> None:  # noqa: ANN401
        """A change within a status that must survive a power cut: the training is over and its proof begins."""
        self.update(**changes)
        self._write_synced()

    def acknowledge(self, request_id: str, verb: str, outcome: str) -> None:
        """A control request was consumed: said at once."""
        self.update(acks=[*self.record.acks[1 - ACKS :], Acknowledgement(request_id[:64], verb[:32], wall(), outcome)])
        self._written = -BEAT

    def tick(self) -> None:
        """Write what is due: an owed transition each second, so a change (a slow disk: seldomer), a beat every five."""
        since = self._watch.now() - self._written
        if self._is_owed and since >= PROGRESS:
            self._write_synced()
        elif since >= BEAT or (self._is_dirty and since >= self._pause):
            self._write_beat()

    def check_lock(self) -> None:
        """Raises `SessionGoneError` where the lock's path is no longer the file that this keeper locked."""
        try:
            is_there = self._lock.still_at(self._folder.lock_file)
        except StorageError as error:  # no word is not a no: it is asked again at the next tick
            if not self._is_lock_unseen:
                self._log.line(f"whether the session's folder is still there cannot be seen, and is asked again: {error}")
            self._is_lock_unseen = True
            return
        self._is_lock_unseen = False
        if not is_there:
            raise SessionGoneError("the session's folder was removed while it ran")

    def today(self) -> datetime:
        return self._watch.today()

    def _write_synced(self) -> None:
        self.check_lock()
        self._record = msgspec.structs.replace(self.record, beat_at=wall())
        path = self._folder.attempt_file(self.record.attempt)
        was_owed, self._is_owed, self._written = self._is_owed, True, self._watch.now()
        for is_last in (False, True):
            try:
                self._write(toml.write, path)
            except StorageError as error:
                if is_last and not was_owed:
                    self._log.line(f"the record cannot be written and is tried again each second: {error}")
                elif not is_last:
                    self._give_up_reserve()
            else:
                self._is_dirty = self._is_owed = False
                return

    def _write_beat(self) -> None:
        self.check_lock()
        self._record = msgspec.structs.replace(self.record, beat_at=wall())
        self._written = self._watch.now()
        with suppress(StorageError):  # the next beat is due in a second; a transition is never written this way
            self._write(toml.write_beat, self._folder.attempt_file(self.record.attempt))
            self._is_dirty = False
        took = self._watch.now() - self._written
        self._pause = min(BEAT, max(PROGRESS, 10 * took))  # a disk that is slow to sync does not take up the keeper's time

    def _write(self, write: Callable[[Path, Record], None], path: Path) -> None:
        """Where the folder of the records was taken away it is made again: the record is not lost with it.

        Where a link was put in its place nothing is written: it leads out of the session.
        """
        try:
            must_be_own_folder(path.parent)
            write(path, self.record)
        except StorageError as error:
            if error.errno != errno.ENOENT:
                raise
            make_own_folder(path.parent)
            write(path, self.record)

    def _make_reserve(self) -> None:
        path = self._folder.reserve_file
        with suppress(FileNotFoundError):
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_size >= RESERVE:
                return
        with suppress(OSError):
            try:
                fd = open_for_writing(path)
            except DamagedError as error:
                self._log.line(f"nothing is held in reserve for a full disk: {error}")
                return
            try:
                os.write(fd, os.urandom(RESERVE))  # real bytes: a hole, or what compresses, reserves nothing
                os.fsync(fd)
            finally:
                os.close(fd)

    def _give_up_reserve(self) -> None:
        with suppress(OSError):
            self._folder.reserve_file.unlink()
