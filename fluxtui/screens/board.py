"""The dashboard: sessions, the selected one, its log, the machine. What `fluxtui` opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.events import ScreenResume
from textual.geometry import Region, Size
from textual.widget import Widget

from fluxtui.persist.sessions.overview import Overview
from fluxtui.screens.base_screen import BaseScreen
from fluxtui.screens.dialogs.filter_line import FilterLine
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.ink import Line, Span, both_ends, shorten
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.keys.dispatch import bindings_for
from fluxtui.screens.log.pane import LogPane
from fluxtui.screens.notices import NoticeBoard
from fluxtui.screens.panels.attempts import Attempts
from fluxtui.screens.panels.gauges import Gauges
from fluxtui.screens.panels.selected import Selected
from fluxtui.screens.panels.sessions import ATTENTION, GROUPS, SORTS, Sessions
from fluxtui.screens.watching.history import History
from fluxtui.screens.watching.watch import Detail

if TYPE_CHECKING:
    from fluxtui.gpu import Gpus, HostGauges

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
            (f"{doubtful} need{'s' if doubtful == 1 else ''} attention", "warn", doubtful),
        )
        for text, role, number in parts:
            if number:
                line.add(text, role).add(f" {self.glyphs.dot} ", "faint")
        return line.add(words.count(len(sessions), "session"), "dim")


class Board(BaseScreen):
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
        self._rows_wanted = self._machine = 0

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
        is_open = wide or self.gauges.has_focus  # in a narrow terminal it is one line, and a panel while it has the focus
        self.gauges.frame = ("box" if boxed else "rule") if is_open else "bare"
        self.gauges.has_history = wide
        placed: dict[Widget, Region] = {self.header: Region(0, 0, size.width, 1)}
        top = 1
        main_width = size.width
        if wide:
            main_width = size.width - SIDE
            machine = self._machine_rows(SIDE, size.height // 2, boxed)
            placed[self.gauges] = Region(main_width, 1, SIDE, machine)
            placed[self.attempts] = Region(main_width, 1 + machine, SIDE, size.height - 1 - machine)
        else:
            machine = self._machine_rows(size.width, size.height // 2, boxed) if is_open else 1
            placed[self.gauges] = Region(0, 1, size.width, machine)
            top = 1 + machine
        rest = size.height - top
        heights = self._heights(rest, boxed)
        y = top
        for pane, height in zip((self.sessions, self.selected, self.log_pane), heights, strict=True):
            placed[pane] = Region(0, y, main_width, height)
            y += height
        start = 1 if self.gauges.has_focus else top
        return self._zoomed(placed, Region(0, start, size.width, size.height - start)) | self._filter_place(placed)

    def _machine_rows(self, width: int, most: int, boxed: bool) -> int:
        """Of the machine's panel, its frame included."""
        frame = 2 if boxed else 1
        self._machine = frame + self.gauges.rows_wanted(width - (4 if boxed else 2), most - frame)
        return self._machine

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
        self.gauges.take(host, gpus)
        self.sessions.take_gpus(self.gauges.indices)
        if self.gauges.frame != "bare":
            before = self._machine
            size = self.app.size
            width = SIDE if size.width >= HISTORY else size.width
            wanted = self._machine_rows(width, (size.height - 1) // 2, self.gauges.frame == "box")
            if wanted > before and not self._zoom:  # it shrinks with the next resize: a line that comes and goes costs bytes
                self.place()

    def take_history(self, name: str, history: History) -> None:
        if self.selected.session is not None and self.selected.session.name == name:
            self.selected.take_history(history)

    def take_detail(self, detail: Detail) -> None:
        if self.selected.session is not None and self.selected.session.name == detail.name:
            self.selected.take_spec(detail.spec)
            self.attempts.take(detail.records)

    def follow_log(self, session: Overview | None) -> None:
        self.log_pane.open_soon(session.path / "training.log" if session else None)

    def show_selected(self, session: Overview | None) -> None:
        """Show this session in the panels beside the list."""
        before = self.selected.session
        if (before.name if before else "") != (session.name if session else ""):
            self.attempts.take(())
        self.selected.take(session)
        self.attempts.take_session(session)
        self.footer.repaint()

    def on_screen_resume(self, event: ScreenResume) -> None:
        self.sessions.tell_picked()  # a screen of another session may have been open: the selected one is in view again

    def on_descendant_focus(self) -> None:
        if self._zoom or (self.gauges.has_focus != (self.gauges.frame != "bare") and self.app.size.width < HISTORY):
            self.place()

    # Actions

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
