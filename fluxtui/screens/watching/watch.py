"""What lies on disk, watched from threads of its own: sessions, the metrics of one, the machine's gauges.

No file is read on the UI's loop. Threads are daemons: one that hangs on a dead disk keeps nobody from leaving.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual.message import Message

from fluxtui.persist.checkpoints.commit import committed
from fluxtui.persist.errors import FluxTUIError, StorageError
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.overview import Overview, records
from fluxtui.persist.sessions.record import Record
from fluxtui.persist.settings.recipe import load_spec
from fluxtui.persist.settings.spec import Spec
from fluxtui.screens.watching.history import History, HistoryReader
from fluxtui.screens.watching.sessions_watch import FirstLook, SessionsWatch, mark_of

if TYPE_CHECKING:
    from fluxtui.gpu import Gpus, HostGauges

PERIOD = 1.0  # seconds between looks
GAUGES_EVERY = 2  # looks between two readings of the gauges

Post = Callable[[Message], object]


@dataclass(frozen=True, slots=True)
class Detail:
    """Files of one session beside its newest record."""

    name: str
    spec: Spec | None
    spec_problem: str  # why there is none
    records: Sequence[tuple[int, Record | None, str]]  # every attempt, and why it cannot be read where it cannot
    checkpoints: Sequence[str]  # names, ascending
    samples: Sequence[str]  # names of the folders, ascending
    is_kept: bool = False  # a keeper holds it, whatever its newest record says: one that resumes may hang before its own


def read_detail(home: Home, name: str) -> Detail:
    """Reads them; never raises for what lies there."""
    spec, problem = None, ""
    folder = home.session(name)
    try:
        spec = load_spec(folder.spec_file)
    except FluxTUIError as error:
        problem = clean(str(error))
    try:
        attempts = records(home, name)
    except FluxTUIError:
        attempts = []
    return Detail(name, spec, problem, attempts, committed(folder.checkpoints), _folders(folder.samples), _is_kept(folder))


def _is_kept(folder: SessionFolder) -> bool:
    try:
        return Lock.held(folder.lock_file)
    except StorageError:
        return False


def _folders(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.name.startswith("step-") and entry.is_dir())
    except OSError:
        return []


class SessionsSeen(Message):
    """The sessions, all of them, after something changed."""

    def __init__(self, sessions: Sequence[Overview], changed: frozenset[str], trouble: str) -> None:
        super().__init__()
        self.sessions, self.changed, self.trouble = sessions, changed, trouble


class HistorySeen(Message):
    """The metrics of a session grew, or are those of another session now."""

    def __init__(self, name: str, history: History) -> None:
        super().__init__()
        self.name, self.history = name, history


class DetailSeen(Message):
    """What else is known of the selected session: read anew when its files change."""

    def __init__(self, detail: Detail) -> None:
        super().__init__()
        self.detail = detail


class GaugesSeen(Message):
    """A reading of the machine's gauges."""

    def __init__(self, host: HostGauges | None, gpus: Gpus | None) -> None:
        super().__init__()
        self.host, self.gpus = host, gpus


class Watch:
    """The threads. `post` takes messages from any of them."""

    def __init__(self, home: Home, post: Post) -> None:
        self._home, self._post = home, post
        self._is_over = threading.Event()
        self._look_now = threading.Event()
        self._can_tell = threading.Event()
        self._has_begun = False
        self._followed: HistoryReader | None = None
        self._followed_name = ""
        self._beside: dict[str, HistoryReader] = {}
        self._detail_mark: tuple[object, ...] = ()
        self._is_history_due = False
        self._is_hurried = False

    def look_early(self, first: FirstLook | None = None) -> None:
        """Begin to read the sessions before there is anybody to tell: while the UI comes up."""
        if not self._has_begun:
            self._has_begun = True
            threading.Thread(target=self._watch_sessions, args=(first,), daemon=True, name="sessions").start()

    def start(self) -> None:
        """From now on what is seen can be told."""
        self.look_early()
        self._can_tell.set()

    def start_gauges(self) -> None:
        """Read the machine too, from now on: what it takes to begin with would hold up the first frame."""
        threading.Thread(target=self._watch_machine, daemon=True, name="gauges").start()

    def stop(self) -> None:
        self._is_over.set()
        self._can_tell.set()
        self._look_now.set()

    def hurry(self) -> None:
        """Look at once: something was just done."""
        self._is_hurried = True
        self._look_now.set()

    def tell_again(self) -> None:
        """Say once more what is known of the session in view: a screen has opened that has not heard it."""
        self._detail_mark = ()
        self._is_history_due = True
        self._look_now.set()

    def follow(self, name: str) -> None:
        """Read the metrics of this session from now on; an empty name: of none."""
        if name == self._followed_name:
            return
        self._followed_name = name
        self._followed = HistoryReader(self._home.session(name).metrics_file) if name else None
        self._look_now.set()

    def follow_beside(self, names: Sequence[str]) -> None:
        """Read the metrics of these sessions too, and of no others, beside those of the one that is followed."""
        readers = self._beside
        self._beside = {name: readers.get(name) or HistoryReader(self._home.session(name).metrics_file) for name in names}
        self._look_now.set()

    def _watch_sessions(self, first: FirstLook | None) -> None:
        watch = SessionsWatch(self._home)
        is_first, trouble_before, due = True, "", 0.0
        while not self._is_over.is_set():
            if self._is_hurried or time.monotonic() >= due:  # not where only another session is followed now
                self._is_hurried, due = False, time.monotonic() + PERIOD
                seen = first.take() if first is not None else None
                sessions, changed, trouble = watch.adopt(seen) if seen is not None else watch.look()
                self._can_tell.wait()
                if self._is_over.is_set():
                    return
                if changed or is_first or trouble != trouble_before:
                    self._post(SessionsSeen(sessions, changed, trouble))
                    is_first, trouble_before = False, trouble
            self._read_metrics()
            self._read_detail()
            if first is not None:
                first.forget()
                first = None
            self._look_now.wait(max(0.0, due - time.monotonic()))
            self._look_now.clear()

    def _read_metrics(self) -> None:
        reader, name = self._followed, self._followed_name
        is_due, self._is_history_due = self._is_history_due, False
        if reader is not None and (reader.read_on() or is_due):
            self._post(HistorySeen(name, reader.history))
        for name, reader in self._beside.items():
            if reader.read_on():
                self._post(HistorySeen(name, reader.history))

    def _read_detail(self) -> None:
        name = self._followed_name
        if not name:
            return
        folder = self._home.session(name)
        mark = (name, _is_kept(folder), *mark_of(str(folder.path), "checkpoints", "samples"))
        if mark != self._detail_mark:
            self._detail_mark = mark
            self._post(DetailSeen(read_detail(self._home, name)))

    def _watch_machine(self) -> None:
        from fluxtui.gpu import GpuWatch, host_gauges

        gpus = GpuWatch()
        gpus.start(PERIOD * GAUGES_EVERY)
        try:
            while not self._is_over.is_set():
                self._post(GaugesSeen(host_gauges(self._home.root), gpus.latest()))
                self._is_over.wait(PERIOD * GAUGES_EVERY)
        finally:
            gpus.stop()
