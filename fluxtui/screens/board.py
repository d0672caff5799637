"""The dashboard: sessions, the selected one, its log, the machine. What `fluxtui` opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.geometry import Region, Size
from textual.widget import Widget

from fluxtui.persist.overview import Overview
from fluxtui.screens import words
from fluxtui.screens.attempts import Attempts
from fluxtui.screens.doing import bindings_for
from fluxtui.screens.filter_line import FilterLine
from fluxtui.screens.gauges import Gauges
from fluxtui.screens.history import History
from fluxtui.screens.ink import Line, Span, both_ends, shorten
from fluxtui.screens.log_pane import LogPane
from fluxtui.screens.notices import NoticeBoard
from fluxtui.screens.pane import Pane
from fluxtui.screens.selected import Selected
from fluxtui.screens.sessions import ATTENTION, GROUPS, SORTS, Sessions
from fluxtui.screens.sheet import Sheet
from fluxtui.screens.watch import Detail

if TYPE_CHECKING:
    from fluxtui.gpu import Gpus, HostGauges

STACKED = 100  # columns below which everything stands one under the other
HISTORY = 160  # columns from which machine and attempts have a column of their own
BOXED = 34  # rows from which panes have frames; below, a rule over each saves rows
SIDE = 52  # columns of that column


class Header(Pane):
    """The first line: how many sessions do what, and where the home is."""

    DEFAULT_CSS: ClassVar[str] = "Header { height: 1; }"
    FRAME = "bare"
    can_focus = False

    def __init__(self, home: Path) -> None:
        super().__init__(id="header")
        self._home = home
        self._sessions: Sequence[Overview] = ()
        self._trouble = ""

    def take(self, sessions: Sequence[Overview], trouble: str) -> None:
        self._sessions, self._trouble = sessions, trouble
        self.repaint()

    def body(self, width: int, height: int) -> list[Line]:
        left = Line(" ", Span("fluxtui", "!info"), "  ")
        if self._trouble:
            return [left.add(self._trouble, "bad").cut(width)]
        left.extend(self._counts())
        path = words.place(str(self._home))
        return [
            both_ends(left, Line(Span(shorten(path, max(0, width - left.width - 3), self.glyphs.ellipsis), "dim"), " "), width)
        ]

    def _counts(self) -> Line:
        """How many train, wait, need attention; how many there are."""
        sessions = self._sessions
        training = sum(session.state in {"running", "starting", "stopping"} for session in sessions)
        queued = sum(session.state == "queued" for session in sessions)
        doubtful = sum(session.state in ATTENTION for session in sessions)
        line = Line()
        parts = (
            (f"{training} training", "live", training),
            (f"{queued} queued", "warn", queued),
            (f"{doubtful} to look at", "warn", doubtful),
        )
        for text, role, number in parts:
            if number:
                line.add(text, role).add(f" {self.glyphs.dot} ", "faint")
        return line.add(words.count(len(sessions), "session"), "dim")


class Board(Sheet):
    """The dashboard."""

    BINDINGS = bindings_for("board")
    FOOTER = ("board",)

    def __init__(self, home: Path, notices: NoticeBoard) -> None:
        super().__init__(notices)
        self.header = Header(home)
        self.gauges = Gauges(id="gauges")
        self.sessions = Sessions(id="sessions")
        self.selected = Selected(id="selected")
        self.log_pane = LogPane(id="log")
        self.attempts = Attempts(id="attempts")
        self.filter = FilterLine("filter")
        self._zoom = 0
        self._rows_wanted = 0

    def panes(self) -> list[Widget]:
        return [self.header, self.gauges, self.sessions, self.selected, self.log_pane, self.attempts, self.filter]

    def on_mount(self) -> None:
        self.sessions.focus()

    # Places

    def places(self, size: Size) -> Mapping[Widget, Region]:
        boxed = size.height >= BOXED
        wide = size.width >= HISTORY
        framed: tuple[Pane, ...] = (self.sessions, self.selected, self.log_pane, self.attempts)
        for pane in framed:
            pane.frame = "box" if boxed else "rule"
        self.gauges.frame = ("box" if boxed else "rule") if wide else "bare"
        self.gauges.has_history = wide
        placed: dict[Widget, Region] = {self.header: Region(0, 0, size.width, 1)}
        top = 1
        main_width = size.width
        if wide:
            main_width = size.width - SIDE
            machine = min(self._machine_rows() + (2 if boxed else 1), size.height // 2)
            placed[self.gauges] = Region(main_width, 1, SIDE, machine)
            placed[self.attempts] = Region(main_width, 1 + machine, SIDE, size.height - 1 - machine)
        else:
            placed[self.gauges] = Region(0, 1, size.width, 1)
            top = 2
        rest = size.height - top
        heights = self._heights(rest, boxed)
        y = top
        for pane, height in zip((self.sessions, self.selected, self.log_pane), heights, strict=True):
            placed[pane] = Region(0, y, main_width, height)
            y += height
        return self._zoomed(placed, Region(0, top, size.width, rest)) | self._filter_place(placed)

    def _machine_rows(self) -> int:
        gpus = len(self.gauges.gpus.devices) if self.gauges.gpus else 0
        return 5 * gpus + (0 if gpus else 2) + 4

    def _heights(self, rest: int, boxed: bool) -> tuple[int, int, int]:
        """Of sessions, the selected one, the log."""
        extra = 3 if boxed else 2
        sessions = min(max(len(self.sessions.shown) + extra, 4 + extra), max(6, rest * 2 // 5))
        selected = max(7, min(rest * 3 // 10, 16))
        return sessions, selected, max(0, rest - sessions - selected)

    def _zoomed(self, places: dict[Widget, Region], whole: Region) -> dict[Widget, Region]:
        """The pane in focus alone, or with three quarters of the room."""
        focused = self.focused
        if not self._zoom or focused not in places:
            return places
        main = [pane for pane in (self.sessions, self.selected, self.log_pane) if pane in places]
        if self._zoom == 2 or focused not in main:
            return {self.header: places[self.header], focused: whole} | (
                {} if places.get(self.gauges, whole).height > 1 else {self.gauges: places[self.gauges]}
            )
        width = places[focused].width
        small = max(3, whole.height // 8)
        y = whole.y
        for pane in main:
            height = whole.height - small * (len(main) - 1) if pane is focused else small
            places[pane] = Region(0, y, width, height)
            y += height
        return places

    def _filter_place(self, places: Mapping[Widget, Region]) -> dict[Widget, Region]:
        """The line to type a filter in: over the last line of the sessions panel."""
        where = places.get(self.sessions)
        if not self.filter.is_open or where is None:
            return {}
        return {self.filter: Region(where.x + 1, where.bottom - 1, where.width - 2, 1)}

    # What was seen

    def take_sessions(self, sessions: Sequence[Overview], trouble: str) -> None:
        self.header.take(sessions, trouble)
        self.sessions.take(sessions)
        self.gauges.owners = {rank.pid: one.name for one in sessions if one.is_active and one.record for rank in one.record.ranks}
        self.show_selected(self.sessions.selected)
        rows = len(self.sessions.shown)
        if rows != self._rows_wanted:
            self._rows_wanted = rows
            self.place()

    def take_gauges(self, host: HostGauges | None, gpus: Gpus | None) -> None:
        had = len(self.gauges.gpus.devices) if self.gauges.gpus else -1
        self.gauges.take(host, gpus)
        if had != (len(gpus.devices) if gpus else -1) and self.app.size.width >= HISTORY:
            self.place()

    def take_history(self, name: str, history: History) -> None:
        if self.selected.session is not None and self.selected.session.name == name:
            self.selected.take_history(history)

    def take_detail(self, detail: Detail) -> None:
        if self.selected.session is not None and self.selected.session.name == detail.name:
            self.selected.take_guard(detail.spec.guard if detail.spec else None)
            self.attempts.take(detail.records)

    def follow_log(self, session: Overview | None) -> None:
        self.log_pane.open(session.path / "training.log" if session else None)

    def show_selected(self, session: Overview | None) -> None:
        """Show this session in the panels beside the list."""
        before = self.selected.session
        if (before.name if before else "") != (session.name if session else ""):
            self.attempts.take(())
        self.selected.take(session)
        self.footer.repaint()

    def on_descendant_focus(self) -> None:
        if self._zoom:
            self.place()

    # Deeds

    def do_focus_next(self) -> None:
        self.focus_next()

    def do_focus_previous(self) -> None:
        self.focus_previous()

    def do_zoom_in(self) -> None:
        self._zoom = min(2, self._zoom + 1)
        self.place()

    def do_zoom_out(self) -> None:
        self._zoom = max(0, self._zoom - 1)
        self.place()

    def do_sort(self) -> None:
        names = list(SORTS)
        self.sessions.sort = names[(names.index(self.sessions.sort) + 1) % len(names)]
        self.sessions.rearrange()

    def do_filter_state(self) -> None:
        names = list(GROUPS)
        self.sessions.group = names[(names.index(self.sessions.group) + 1) % len(names)]
        self.sessions.rearrange()

    def do_filter(self) -> None:
        self.filter.open(self.sessions.text)
        self.place()

    def on_filter_line_changed(self, message: FilterLine.Changed) -> None:
        self.sessions.text = message.text
        self.sessions.rearrange()

    def on_filter_line_closed(self, message: FilterLine.Closed) -> None:
        if not message.keeps:
            self.sessions.text = ""
            self.sessions.rearrange()
        self.sessions.focus()
        self.place()

    def key_escape(self) -> None:
        """Shows all again, where something is hidden; puts a notice away otherwise."""
        if self.sessions.text or self.sessions.group != "all":
            self.sessions.text, self.sessions.group = "", "all"
            self.sessions.rearrange()
        elif self._zoom:
            self._zoom = 0
            self.place()
        else:
            self.action_do("dismiss")
