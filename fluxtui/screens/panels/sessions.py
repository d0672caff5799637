"""The sessions panel: one line a session, sorted and filtered; smooth with a thousand of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual.events import Click
from textual.message import Message

from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.sessions.record import ACTIVE
from fluxtui.screens.drawing.ink import Line, Span, fit, shorten
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.keys.dispatch import bindings_for
from fluxtui.screens.keys.movement import MovementKeys
from fluxtui.screens.panels.session_row import RIGHT, TITLES, columns, row

ATTENTION = frozenset({"failed", "lost", "stalled", "suspended", "storage", "silent", "changed", "unreadable"})
GROUPS: dict[str, Callable[[Overview], bool]] = {
    "all": lambda session: True,
    "active": lambda session: session.status in ACTIVE and session.state != "lost",
    "need attention": lambda session: session.state in ATTENTION,
    "finished": lambda session: session.state in {"completed", "changed", "failed", "stopped"},
}
_RANK = {
    "stalled": 0,
    "suspended": 0,
    "storage": 0,
    "silent": 0,
    "running": 1,
    "stopping": 1,
    "starting": 1,
    "elsewhere": 2,
    "queued": 2,
    "lost": 3,
    "failed": 4,
    "unreadable": 4,
    "changed": 4,
    "stopped": 5,
    "new": 6,
    "completed": 7,
}


def _place(session: Overview) -> tuple[float, float]:
    """Among those of the same state: what waits in the order in which it will start, the rest by what was last at work."""
    if session.state == "queued" and session.record and session.queued_at:
        return (session.record.priority, session.queued_at.timestamp())
    moment = session.finished_at or session.started_at
    return (0.0, -moment.timestamp() if moment else 0.0)


SORTS: dict[str, Callable[[Overview], tuple[object, ...]]] = {
    "activity": lambda session: (_RANK.get(session.state, 4), _place(session), session.name),
    "name": lambda session: (session.name,),
    "state": lambda session: (session.state, session.name),
    "progress": lambda session: (-(session.step / session.steps if session.steps else -1.0), session.name),
    "loss": lambda session: (session.loss if session.loss is not None else float("inf"), session.name),
}


def arranged(sessions: Sequence[Overview], sort: str, group: str, text: str) -> list[Overview]:
    """The sessions that are shown, in the order shown."""
    wanted = text.lower().split()
    keep = GROUPS[group]
    found = [session for session in sessions if keep(session) and all(word in _searchable(session) for word in wanted)]
    return sorted(found, key=SORTS[sort])  # type: ignore[arg-type,unused-ignore]


def _searchable(session: Overview) -> str:
    return f"{session.name} {session.title} {session.state} {session.phase or ''} {session.reason}".lower()


class Sessions(Pane, MovementKeys):
    """The table. Posts `Picked` when another session is selected."""

    DEFAULT_CSS: ClassVar[str] = "Sessions { height: 8; }"
    BINDINGS = bindings_for("list")
    can_focus = True
    wheel = 1

    class Picked(Message):
        """Another session is selected; None: there is none."""

        def __init__(self, session: Overview | None) -> None:
            super().__init__()
            self.session = session

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.sort, self.group, self.text = "activity", "all", ""
        self._all: Sequence[Overview] = ()
        self._shown: list[Overview] = []
        self._picked_name = ""  # of the selected one: it stays selected wherever it moves
        self._top = 0
        self.is_loading = True
        self._gpus: Mapping[str, int] = {}

    @property
    def selected(self) -> Overview | None:
        return next((session for session in self._shown if session.name == self._picked_name), None)

    @property
    def shown(self) -> Sequence[Overview]:
        return self._shown

    def take(self, sessions: Sequence[Overview]) -> None:
        """Show these sessions from now on; the selected one stays so, where it still exists."""
        if self.is_loading:
            shown = arranged(sessions, self.sort, self.group, self.text)
            self._picked_name = next((session.name for session in shown if session.state in ATTENTION), "")
        self.is_loading = False
        self._all = sessions
        self.rearrange()

    def take_gpus(self, indices: Mapping[str, int]) -> None:
        """What number each GPU has, by its UUID."""
        if indices != self._gpus:
            self._gpus = indices
            self.repaint()

    def rearrange(self) -> None:
        """Sort and filter anew."""
        at = self._at()
        before = self._picked_name
        self._shown = arranged(self._all, self.sort, self.group, self.text)
        if self.selected is None:
            self._picked_name = self._shown[min(at, len(self._shown) - 1)].name if self._shown else ""
        self._keep_in_view()
        self.repaint()
        if self._picked_name != before:
            self.tell_picked()

    def tell_picked(self) -> None:
        """To the app itself: what is posted while a parent handles a message of its own does not come up through it."""
        self.app.post_message(self.Picked(self.selected))

    def select(self, name: str) -> None:
        """Select a session by name, showing all where a filter hides it."""
        if not any(session.name == name for session in self._shown):
            self.group, self.text = "all", ""
            self._shown = arranged(self._all, self.sort, self.group, self.text)
        self._picked_name = name
        self._keep_in_view()
        self.repaint()
        self.tell_picked()

    def _at(self) -> int:
        return next((at for at, session in enumerate(self._shown) if session.name == self._picked_name), 0)

    def walk_to(self, to: int) -> None:
        if not self._shown:
            return
        to = min(max(to, 0), len(self._shown) - 1)
        if self._shown[to].name != self._picked_name:
            self._picked_name = self._shown[to].name
            self._keep_in_view()
            self.repaint()
            self.tell_picked()

    def _rows(self) -> int:
        return max(1, self.inner[1] - self._has_titles())

    def _has_titles(self) -> bool:
        return self.inner[1] >= 4

    def _keep_in_view(self) -> None:
        rows, at = self._rows(), self._at()
        self._top = min(max(self._top, at - rows + 1), at)
        self._top = max(0, min(self._top, len(self._shown) - rows))

    def here(self) -> int:
        return self._at()

    def last(self) -> int:
        return len(self._shown) - 1

    def page_rows(self) -> int:
        return self._rows()

    def on_click(self, event: Click) -> None:
        self.walk_to(self._top + event.y - 1 - self._has_titles())

    # Drawing

    def heading(self) -> Line:
        line = Line(Span("sessions", "!text" if self.has_focus else "text"))
        if self.text:
            line.add(f" {self.glyphs.dot} ", "faint").add("matching ", "dim").add(
                shorten(self.text, 24, self.glyphs.ellipsis), "accent"
            )
        return line

    def corner(self, width: int) -> Line:
        total, shown = len(self._all), len(self._shown)
        count = f"{self._at() + 1}/{shown}" if shown > self._rows() else ""
        parts = [
            part
            for part in (count, f"{shown} of {total}" if shown != total else "", self.group if self.group != "all" else "")
            if part
        ]
        if self.sort != "activity":
            parts.append(f"by {self.sort}")
        return Line(Span(f" {self.glyphs.dot} ".join(parts), "dim")) if parts else Line()

    def scroll_mark(self, height: int) -> tuple[int, int] | None:
        total, rows = len(self._shown), self._rows()
        if total <= rows:
            return None
        size = max(1, rows * rows // total)
        first = self._has_titles() + round((rows - size) * self._top / max(1, total - rows))
        return first, first + size - 1

    def body(self, width: int, height: int) -> list[Line]:
        if not self._shown:
            return self._nothing()
        self._keep_in_view()
        glyphs = self.glyphs
        widths = columns(width, glyphs.tier)
        lines = []
        if self._has_titles():
            cells = [fit(TITLES[name], cell) if name not in RIGHT else TITLES[name].rjust(cell) for name, cell in widths.items()]
            lines.append(Line(Span("  " + "  ".join(cells), "dim")))
        for session in self._shown[self._top : self._top + self._rows()]:
            lines.append(row(session, widths, glyphs, session.name == self._picked_name, self._gpus))
        return lines

    def _nothing(self) -> list[Line]:
        if self.is_loading:
            return [Line(Span("reading the sessions", "dim"))]
        if self._all:
            return [Line(Span("No session matches. ", "dim"), Span("esc", "!accent"), Span(" shows all.", "dim"))]
        return [
            Line(),
            Line(Span("  D", "!accent"), Span("  run the demo: a pocket FLUX learns a new shape, two minutes on a CPU")),
            Line(Span("  n", "!accent"), Span("  new session: your pictures, a model, defaults that train as they stand")),
            Line(Span("  ?", "!accent"), Span("  what every key does")),
        ]
