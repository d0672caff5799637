"""The attempts of a session, newest first: when, how far, how each ended and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fluxtui.persist.sessions import state
from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.sessions.record import ACTIVE, Record
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.glyphs import ROLES, Glyphs
from fluxtui.screens.drawing.ink import Line, Span, wrapped
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.keys.dispatch import bindings_for
from fluxtui.screens.keys.movement import MovementKeys

Attempted = Sequence[tuple[int, Record | None, str]]  # number, record, why it cannot be read where it cannot; oldest first


class Attempts(Pane, MovementKeys):
    """History of the selected session."""

    DEFAULT_CSS: ClassVar[str] = "Attempts { height: 10; }"
    BINDINGS = bindings_for("reader")
    can_focus = True

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._records: Attempted = ()
        self._session: Overview | None = None
        self._top = self._last = 0

    def take_session(self, session: Overview | None) -> None:
        self._session = session
        self.repaint()

    def take(self, records: Attempted) -> None:
        if not records:
            self._top = 0  # another session's come next; those of the same one come anew at each beat, and the reader stays
        self._records = records
        self.repaint()

    def heading(self) -> Line:
        return Line(Span("attempts", "!text" if self.has_focus else "text"))

    def corner(self, width: int) -> Line:
        return Line(Span(str(len(self._records)), "dim")) if len(self._records) > 1 else Line()

    def body(self, width: int, height: int) -> list[Line]:
        lines = attempts_lines(self._records, self._session, width, self.glyphs)
        if not lines:
            return [Line(Span("none yet", "dim"))]
        self._last = max(0, len(lines) - height)
        self._top = min(self._top, self._last)
        return lines[self._top :]

    def here(self) -> int:
        return self._top

    def last(self) -> int:
        return self._last

    def page_rows(self) -> int:
        return self.inner[1]

    def walk_to(self, place: int) -> None:
        self._top = max(0, min(place, self._last))
        self.repaint()


def attempts_lines(attempts: Attempted, session: Overview | None, width: int, glyphs: Glyphs) -> list[Line]:
    """All attempts of a session, the newest first."""
    lines: list[Line] = []
    for number, record, problem in reversed(attempts):
        is_newest = session is None or number >= session.attempt  # a newer one than was seen of the session is as its record says
        newest = (session.state, session.reason) if session is not None and number == session.attempt else ("", "")
        told = state.of_attempt(record, newest if is_newest else None) if record is not None else ("", problem)
        lines += _attempt_lines(number, record, told, width, glyphs)
    return lines


def _attempt_lines(number: int, record: Record | None, told: tuple[str, str], width: int, glyphs: Glyphs) -> list[Line]:
    """One attempt: a line with its facts, then its reason."""
    status, reason = told
    head = Line(Span(f"{number} ".rjust(4), "dim"))
    if record is None:
        return [head.add(glyphs.state("unreadable") + " ", "warn").add("unreadable", "warn"), *_told(reason, width, "dim")]
    role = ROLES.get(status, "text")
    head.add(glyphs.state(status) + " ", role).add(status, role).to(18)
    if record.steps:
        head.add(f"step {record.step}/{record.steps}", "text")
    elif record.phase:
        head.add(str(record.phase), "text")
    times = words.clock(record.started_at or record.queued_at)
    if record.finished_at and record.started_at:
        times += f"  {words.duration((record.finished_at - record.started_at).total_seconds())}"
    if head.width + len(times) + 2 <= width:
        head.to(width - len(times)).add(times, "dim")
    lines = [head]
    if record.resumed_from:
        lines += _told(f"from {record.resumed_from}", width, "dim")
    if reason:
        lines += _told(reason, width, "text" if status not in ACTIVE else "dim")
    if record.inexact_since is not None:
        lines += _told(f"not exact since step {record.inexact_since}", width, "warn")
    return lines


def _told(text: str, width: int, role: str) -> list[Line]:
    return [Line(" " * 4, Span(piece, role)) for piece in wrapped(text, max(8, width - 4))]
