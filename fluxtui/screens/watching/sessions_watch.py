"""All sessions of a home, looked at each second: only what may have changed is read. Knows no UI.

The first look costs most, and comes when the UI still imports its libraries: `FirstLook` makes it in a child process
meanwhile, on another core, and begins with what the last one saw: of a session at rest whose files have not changed
since, nothing is read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fluxtui import __version__
from fluxtui.persist.errors import DamagedError, FluxTUIError
from fluxtui.persist.files.durable import write_file
from fluxtui.persist.files.regular import read_regular
from fluxtui.persist.home import Home, SessionFolder, runtime_folder
from fluxtui.persist.sessions.facts import Here
from fluxtui.persist.sessions.overview import Overview, look_in
from fluxtui.persist.sessions.record import ACTIVE, Record
from fluxtui.persist.sessions.state import Shown

RELOOK_EVERY = 10  # looks after which a session at rest is read anew although nothing of it seems changed
INDEX_LIMIT = 64 << 20  # bytes; a thousand sessions take one

Mark = tuple[tuple[int, int] | int, ...]  # of each path: time (ns) and inode, or the number of the error


class SessionsWatch:
    """Looks at every session, and reads those that may have changed since the last look."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._seen: dict[str, Overview] = {}
        self._marks: dict[str, Mark] = {}
        self._looks = 0

    def look(self) -> tuple[Sequence[Overview], frozenset[str], str]:
        """All sessions, the names of those that differ from the last look, and what went wrong."""
        self._looks += 1
        trouble = ""
        try:
            names = self._home.session_names()
        except FluxTUIError as error:
            names, trouble = list(self._seen), str(error)
        changed = set(self._seen) - set(names)
        for name in changed:
            self._seen.pop(name, None)
            self._marks.pop(name, None)
        here, root = Here.look(), str(self._home.sessions)
        for at, name in enumerate(names):
            mark = mark_of(f"{root}/{name}")
            before = self._seen.get(name)
            is_due = (at + self._looks) % RELOOK_EVERY == 0
            if before is not None and mark == self._marks.get(name) and before.status not in ACTIVE and not is_due:
                continue
            if mark[0] in (errno.ENOENT, errno.ENOTDIR):
                continue  # removed between the listing and the look; one that the disk cannot look at is shown as that
            now = look_in(SessionFolder(self._home.sessions / name), here)
            self._marks[name] = mark
            if before != now:
                self._seen[name] = now
                changed.add(name)
        return [self._seen[name] for name in names if name in self._seen], frozenset(changed), trouble

    def adopt(self, seen: Seen) -> tuple[Sequence[Overview], frozenset[str], str]:
        """Take another's look for one's own first one."""
        self._looks += 1
        self._marks = seen.marks
        sessions = self._home.sessions
        self._seen = {one.name: one.overview(sessions) for one in seen.sessions}
        return list(self._seen.values()), frozenset(self._seen), seen.trouble

    def seen(self) -> Seen:
        """What `adopt` takes."""
        sessions, _, trouble = self.look()
        return Seen([_Sent.of(session) for session in sessions], self._marks, trouble)


def mark_of(folder: str, *more: str) -> Mark:
    """What changes when a session changes: the times of its folder, its attempts, its spec, and of more of its folders."""
    marks: list[tuple[int, int] | int] = []
    for path in (folder, f"{folder}/attempts", f"{folder}/session.toml", *(f"{folder}/{name}" for name in more)):
        try:
            facts = os.stat(path)
            marks.append((facts.st_mtime_ns, facts.st_ino))
        except OSError as error:
            marks.append(error.errno or 0)
    return tuple(marks)


class _Sent(msgspec.Struct, array_like=True, frozen=True):
    """An overview on its way between two processes."""

    name: str
    title: str
    id: str
    kind: str
    shown: Shown
    record: Record | None
    attempt: int

    @staticmethod
    def of(one: Overview) -> _Sent:
        return _Sent(one.name, one.title, one.id, one.kind, one.shown, one.record, one.attempt)

    def overview(self, sessions: Path) -> Overview:
        return Overview(self.name, sessions / self.name, self.title, self.id, self.kind, self.shown, self.record, self.attempt)


class Seen(msgspec.Struct, array_like=True, frozen=True):
    """A whole look."""

    sessions: list[_Sent]
    marks: dict[str, Mark]
    trouble: str


@dataclass(frozen=True, slots=True)
class FirstLook:
    """A child process that looks once and says what it saw. It ends by itself, and at once when nobody listens."""

    pid: int
    pipe: int  # what it says, until it closes it

    @staticmethod
    def begin(home: Home) -> FirstLook | None:
        """None where no process can be made, or none safely: a fork beside other threads may take their locks along."""
        if threading.active_count() > 1:
            return None
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            return None
        if pid:
            os.close(writing)
            return FirstLook(pid, reading)
        try:
            _look_and_tell(home, writing)
        finally:
            os._exit(0)

    def take(self) -> Seen | None:
        """What was seen, once the child has said it all; None where it failed: then one looks oneself."""
        with os.fdopen(self.pipe, "rb") as pipe:
            data = pipe.read()
        try:
            return msgspec.msgpack.decode(data, type=Seen)
        except msgspec.MsgspecError:
            return None

    def forget(self) -> None:
        """Wait for the child's end, which has nothing more to say."""
        os.waitpid(self.pid, 0)


def _look_and_tell(home: Home, writing: int) -> None:
    index = _index_file(home)
    watch = SessionsWatch(home)
    known = _read_index(index)
    if known is not None:
        watch.adopt(known)
    seen = watch.seen()
    data = msgspec.msgpack.encode(seen)
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(data)
    if known is None or known.marks != seen.marks:
        with contextlib.suppress(FluxTUIError):  # a cache: the next look does without
            write_file(index, data)


def _index_file(home: Home) -> Path:
    """Where the last look lies: of this home, this machine and this version."""
    called = hashlib.sha256(f"{__version__} {home.root}".encode()).hexdigest()[:16]
    return runtime_folder() / f"sessions-{called}.index"


def _read_index(path: Path) -> Seen | None:
    """None where there is none, or none that can be read."""
    try:
        return msgspec.msgpack.decode(read_regular(path, INDEX_LIMIT), type=Seen)
    except (OSError, DamagedError, msgspec.MsgspecError):
        return None
