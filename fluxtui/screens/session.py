"""Everything about one session: pages for overview, metrics, samples, checkpoints, settings, log and captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from textual.geometry import Region, Size
from textual.widget import Widget

from fluxtui.actions import CHAINS, Chain
from fluxtui.persist.sessions.overview import Overview
from fluxtui.screens.base_screen import BaseScreen
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.glyphs import ROLES
from fluxtui.screens.drawing.ink import Line, Span, shorten
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.keys.dispatch import Dispatcher, bindings_for, first_key, front_of
from fluxtui.screens.notices import NoticeBoard
from fluxtui.screens.pages.captions import CaptionPage
from fluxtui.screens.pages.checkpoints import CheckpointPage
from fluxtui.screens.pages.log import LogTab
from fluxtui.screens.pages.metrics import MetricPage
from fluxtui.screens.pages.overview import OverviewPage
from fluxtui.screens.pages.page import Page
from fluxtui.screens.pages.samples import SamplePage
from fluxtui.screens.pages.spec import SpecPage
from fluxtui.screens.terminal.copying import copy
from fluxtui.screens.watching.history import History
from fluxtui.screens.watching.watch import Detail

if TYPE_CHECKING:
    from textual.events import Click

PAGES = ("overview", "metrics", "samples", "checkpoints", "spec", "log", "captions")


class Tabs(Pane):
    """The session's name and state, and the pages by number."""

    DEFAULT_CSS: ClassVar[str] = "Tabs { height: 3; }"
    FRAME = "bare"
    can_focus = False

    def __init__(self, name: str) -> None:
        super().__init__(id="tabs")
        self._called = name
        self.session: Overview | None = None
        self.page = PAGES[0]
        self._places: list[tuple[int, int, str]] = []

    def show(self, page: str, session: Overview | None) -> None:
        self.page, self.session = page, session
        self.repaint()

    def body(self, width: int, height: int) -> list[Line]:
        return [self._state(width), self._pages(width), Line(Span(self.glyphs.horizontal * width, "faint"))]

    def _state(self, width: int) -> Line:
        session = self.session
        line = Line(" ", Span(shorten(self._called, 40, self.glyphs.ellipsis), "!text"))
        if session is None:
            return line.add("  is gone", "warn")
        role = ROLES.get(session.state, "warn")
        line.add("  ").add(f"{self.glyphs.state(session.state)} {session.state}", role)
        if session.is_active and session.phase:
            line.add(f"  {session.phase}")
            if session.steps:
                line.add(f" {words.percent(session.step, session.steps)}  step {session.step} of {session.steps}")
            elif session.inner:
                line.add(f"  {session.inner}", "dim")
            line.add(f"  {words.duration(session.eta_seconds)} left" if session.eta_seconds is not None else "", "dim")
        elif session.reason:
            line.add(f"  {session.reason}", "dim")
        return line.cut(width)

    def _pages(self, width: int) -> Line:
        """All of them by number, with shorter names and less between them where there is no room for more."""
        keys = {page: first_key(self.app, f"tab-{page}", self.glyphs.tier is Tier.ASCII) for page in PAGES}
        for gap, most in ((2, 20), (1, 20), *((1, cells) for cells in range(9, 2, -1))):
            names = {page: shorten(page, most, self.glyphs.ellipsis) for page in PAGES}
            if sum(len(keys[page]) + 1 + len(names[page]) + gap for page in PAGES) - gap < width:
                break
        line = Line(" ")
        self._places = []
        for page in PAGES:
            start, is_here = line.width, page == self.page
            line.add(f"{keys[page]} ", "!accent" if is_here else "accent").add(names[page], "!_text" if is_here else "dim")
            self._places.append((start, line.width, page))
            line.add(" " * gap)
        return line

    def on_click(self, event: Click) -> None:
        for start, end, page in self._places:
            if event.y == 1 and start <= event.x < end and isinstance(self.screen, SessionScreen):
                self.screen.turn_to(page)


class SessionScreen(BaseScreen):
    """One session, page by page."""

    BINDINGS = bindings_for("session")
    FOOTER: ClassVar[tuple[str, ...]] = ("session",)

    def __init__(self, board: NoticeBoard, session: Overview, page: str = "overview") -> None:
        super().__init__(board)
        self.session: Overview | None = session
        self.session_name = session.name
        self.tabs = Tabs(session.name)
        self.pages: dict[str, Page] = {}
        self._page = page
        self._history: History | None = None
        self._make_pages(session)

    def _make_pages(self, session: Overview) -> None:
        made = (
            OverviewPage(session),
            MetricPage(session),
            SamplePage(session),
            CheckpointPage(session),
            SpecPage(session),
            LogTab(session),
            CaptionPage(session),
        )
        self.pages = dict(zip(PAGES, made, strict=True))

    @property
    def _in_front(self) -> str:
        """The page that is shown. Of a session that is gone nothing is known, and only the overview says so."""
        return self._page if self.session is not None else PAGES[0]

    @property
    def page(self) -> Page:
        return self.pages[self._in_front]

    @property
    def contexts(self) -> tuple[str, ...]:
        return (self.page.context, "session") if self.page.context else ("session",)

    @property
    def chains(self) -> list[Chain]:
        return [chain for chain in CHAINS if "session" in chain and chain[0] == (self.page.context or "reader")]

    @property
    def actor(self) -> Dispatcher:
        return self.page if isinstance(self.page, Dispatcher) else self

    def panes(self) -> list[Widget]:
        return [self.tabs, *self.pages.values()]

    def places(self, size: Size) -> Mapping[Widget, Region]:
        return {self.tabs: Region(0, 0, size.width, 3), self.page: Region(0, 3, size.width, size.height - 3)}

    def on_mount(self) -> None:
        self.turn_to(self._page)

    def turn_to(self, page: str) -> None:
        """Bring a page to the front."""
        self._page = page
        self.place()
        self.tabs.show(self._in_front, self.session)
        self.footer.serve(*self.contexts)
        self.page.focus()
        self.page.shown()

    def take_session(self, session: Overview | None) -> None:
        if session is not None and session.name != self.session_name:
            return
        is_other_page = (session is None) != (self.session is None)
        self.session = session
        self.tabs.show(self._in_front, session)
        for page in self.pages.values():
            page.take_session(session)
        if is_other_page and self.is_mounted:
            self.turn_to(self._page)
        self.footer.repaint()

    def take_history(self, name: str, history: History) -> None:
        for page in self.pages.values():
            if name == self.session_name:
                page.take_history(history)
            else:
                page.take_other(name, history)

    def take_detail(self, detail: Detail) -> None:
        if detail.name == self.session_name:
            for page in self.pages.values():
                page.take_detail(detail)

    # Actions

    def do_back(self) -> None:
        self.dismiss()

    def _turn(self, by: int) -> None:
        self.turn_to(PAGES[(PAGES.index(self._page) + by) % len(PAGES)])

    def do_next_tab(self) -> None:
        self._turn(1)

    def do_previous_tab(self) -> None:
        self._turn(-1)

    def do_tab_overview(self) -> None:
        self.turn_to("overview")

    def do_tab_metrics(self) -> None:
        self.turn_to("metrics")

    def do_tab_samples(self) -> None:
        self.turn_to("samples")

    def do_tab_checkpoints(self) -> None:
        self.turn_to("checkpoints")

    def do_tab_spec(self) -> None:
        self.turn_to("spec")

    def do_tab_log(self) -> None:
        self.turn_to("log")

    def do_tab_captions(self) -> None:
        self.turn_to("captions")

    def do_edit(self) -> None:
        if self.session is not None and (self.session.state == "new" or self.session.never_trained):
            front_of(self.app).edit_settings()
        else:
            self.turn_to("captions")

    def do_copy(self) -> None:
        copy(self.app, *self.page.copied())
