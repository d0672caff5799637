"""The curves of other sessions that are laid over this one's: which, what they hold, and how they are told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fluxtui.persist.sessions.overview import Overview
from fluxtui.screens.dialogs.session_picker import SessionPicker
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.keys.dispatch import front_of
from fluxtui.screens.pages.page import Page
from fluxtui.screens.watching.history import History

ROLES = ("other", "other2", "other3", "other4")
_MARKS = {"other": "o", "other2": "x", "other3": "+", "other4": "*", "good": "v"}


def marks_of(tier: Tier, has_colour: bool) -> Mapping[str, str]:
    """Role -> the character it is drawn with where colour tells nothing; empty where it does."""
    if has_colour and tier is not Tier.ASCII:
        return {}
    return {**_MARKS, "trace": "." if tier is Tier.ASCII else "·"}


class Overlay:
    """Asks which sessions, has their metrics followed, and tells the page whenever one of them has grown."""

    def __init__(self, page: Page, changed: Callable[[], None]) -> None:
        self._page, self._changed = page, changed
        self._names: Sequence[str] = ()
        self._seen: dict[str, History] = {}

    @property
    def others(self) -> list[tuple[str, History]]:
        """Those whose metrics have been read, in the order of choosing."""
        return [(name, self._seen[name]) for name in self._names if name in self._seen]

    def choose(self, session: Overview) -> None:
        front_of(self._page.app).run_quietly(lambda: self._look(session))

    def _look(self, session: Overview) -> None:
        """Runs in a thread: which sessions have metrics."""
        others = sorted(name for name in front_of(self._page.app).sessions if name != session.name)
        found = [name for name in others if (session.path.parent / name / "metrics.jsonl").exists()]
        self._page.app.call_from_thread(self._ask, found)

    def _ask(self, names: Sequence[str]) -> None:
        app = self._page.app
        if not names:
            front_of(app).say("no other session has metrics to lay over this one", "warn")
            return
        sessions = front_of(app).sessions
        rows = [(name, _known(sessions.get(name))) for name in names]
        app.push_screen(SessionPicker("lay over this one", rows, self._names, len(ROLES)), self._picked)

    def _picked(self, names: list[str] | None) -> None:
        if names is not None:
            self._names = names
            front_of(self._page.app).follow_beside(names)
            self._changed()

    def take(self, name: str, history: History) -> None:
        """What was read of one of them."""
        if name in self._names:
            self._seen[name] = history
            self._changed()

    def let_go(self) -> None:
        """Nobody looks any more."""
        front_of(self._page.app).follow_beside(())


def _known(session: Overview | None) -> str:
    if session is None:
        return ""
    return f"{session.state}  step {session.step}" + (f" of {session.steps}" if session.steps else "")
