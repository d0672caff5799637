"""The curves of other sessions that are laid over this one's: which, what they hold, and how they are told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fluxtui.persist.overview import Overview
from fluxtui.screens.doing import front_of
from fluxtui.screens.history import History, HistoryReader
from fluxtui.screens.page import Page
from fluxtui.screens.session_picker import SessionPicker
from fluxtui.screens.terminal_kind import Tier

ROLES = ("other", "other2", "other3", "other4")
_MARKS = {"other": "o", "other2": "x", "other3": "+", "other4": "*", "good": "v"}


def marks_of(tier: Tier, has_colour: bool) -> Mapping[str, str]:
    """Role -> the character it is drawn with where colour tells nothing; empty where it does."""
    if has_colour and tier is not Tier.ASCII:
        return {}
    return {**_MARKS, "trace": "." if tier is Tier.ASCII else "·"}


class Overlay:
    """Asks which sessions, reads their metrics in a thread, and tells the page when they are there."""

    def __init__(self, page: Page, changed: Callable[[], None]) -> None:
        self._page, self._changed = page, changed
        self.others: list[tuple[str, History]] = []

    def choose(self, session: Overview) -> None:
        front_of(self._page.app).errand_quietly(lambda: self._look(session))

    def _look(self, session: Overview) -> None:
        """Runs in a thread: which sessions have metrics."""
        folders = sorted(path for path in session.path.parent.iterdir() if path != session.path)
        found = [path for path in folders if (path / "metrics.jsonl").exists()]
        self._page.app.call_from_thread(self._ask, found)

    def _ask(self, folders: Sequence[Path]) -> None:
        app = self._page.app
        if not folders:
            front_of(app).say("no other session has metrics to lay over this one", "warn")
            return
        sessions = front_of(app).sessions
        rows = [(folder.name, _known(sessions.get(folder.name))) for folder in folders]
        picker = SessionPicker("lay over this one", rows, [name for name, _ in self.others], len(ROLES))
        app.push_screen(picker, lambda names: self._picked(names, {folder.name: folder for folder in folders}))

    def _picked(self, names: list[str] | None, folders: Mapping[str, Path]) -> None:
        if names is not None:
            front_of(self._page.app).errand_quietly(lambda: self._read(names, folders))

    def _read(self, names: Sequence[str], folders: Mapping[str, Path]) -> None:
        """Runs in a thread."""
        others = [(name, _history(folders[name])) for name in names if name in folders]
        self._page.app.call_from_thread(self._took, others)

    def _took(self, others: list[tuple[str, History]]) -> None:
        self.others = others
        self._changed()


def _known(session: Overview | None) -> str:
    if session is None:
        return ""
    return f"{session.state}  step {session.step}" + (f" of {session.steps}" if session.steps else "")


def _history(folder: Path) -> History:
    reader = HistoryReader(folder / "metrics.jsonl")
    reader.read_on()
    return reader.history
