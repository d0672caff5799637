"""The base of every full screen: panes placed by a function, footer, notices, and a message where the terminal is too small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.events import Resize, ScreenResume
from textual.geometry import Region, Size
from textual.screen import Screen
from textual.widget import Widget

from fluxtui.actions import CHAINS, Chain
from fluxtui.persist.sessions.overview import Overview
from fluxtui.refusals import Situation
from fluxtui.screens.drawing.ink import Line, Span
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.footer import Footer
from fluxtui.screens.keys.dispatch import Dispatcher, first_key, front_of
from fluxtui.screens.notices import NoticeBoard, Notices
from fluxtui.screens.watching.history import History
from fluxtui.screens.watching.watch import Detail

LEAST = Size(61, 21)  # 60 by 20 and less say what they need


class TooSmall(Pane):
    """Stands alone where there is not room enough."""

    DEFAULT_CSS: ClassVar[str] = "TooSmall { layer: above; width: 100%; height: 100%; display: none; }"
    FRAME = "bare"

    def body(self, width: int, height: int) -> list[Line]:
        size = self.app.size
        texts = [
            f"{size.width}{self.glyphs.times}{size.height} is too small",
            f"{LEAST.width}{self.glyphs.times}{LEAST.height} is needed",
            "training goes on",
            f"{first_key(self.app, 'quit', self.glyphs.tier is Tier.ASCII)} leaves",
        ]
        shown = [Line(Span(text[:width].center(width), "!text" if at == 1 else "dim")) for at, text in enumerate(texts[:height])]
        return [Line() for _ in range(max(0, (height - len(shown)) // 2))] + shown


class BaseScreen(Screen[None], Dispatcher):
    """A screen whose panes are placed by `places`, a pure function of the size."""

    DEFAULT_CSS: ClassVar[str] = "BaseScreen { layers: default above notices; background: $background; overflow: hidden; }"
    FOOTER: ClassVar[tuple[str, ...]] = ()
    session_name = ""  # of the session that the whole screen is about; its keys act on no other

    def __init__(self, board: NoticeBoard) -> None:
        super().__init__()
        self.notices = Notices(board)
        self.footer = Footer(*self.FOOTER)
        self._too_small = TooSmall()
        self._in_focus: Widget | None = None  # before there was too little room: what is not shown loses the focus

    def panes(self) -> list[Widget]:
        """The panes, in the order of the tab key."""
        raise NotImplementedError

    def places(self, size: Size) -> Mapping[Widget, Region]:
        """Where each pane stands, footer left out; a pane without a place is not shown."""
        raise NotImplementedError

    @property
    def contexts(self) -> tuple[str, ...]:
        """Of the actions that are this screen's own: what palette and footer offer."""
        return self.FOOTER

    @property
    def chains(self) -> list[Chain]:
        """The contexts that are live here together, nearest first; several where it depends on the pane in focus."""
        return [chain for chain in CHAINS if self.FOOTER[0] in chain]

    @property
    def actor(self) -> Dispatcher:
        """Who carries out an action of these contexts that was not chosen by its key."""
        return self

    @property
    def is_too_small(self) -> bool:
        """Whether nothing is shown but that there is not room enough."""
        return bool(self._too_small.display)

    def situation(self, name: str = "") -> Situation:
        return front_of(self.app).situation(name)

    # What was seen on disk; a screen takes what it shows

    def take_session(self, session: Overview | None) -> None: ...
    def take_history(self, name: str, history: History) -> None: ...
    def take_detail(self, detail: Detail) -> None: ...

    def compose(self) -> ComposeResult:
        for pane in self.panes():
            pane.styles.position = "absolute"
            yield pane
        yield self.footer
        yield self._too_small
        yield self.notices

    def on_resize(self, event: Resize) -> None:
        self.place()

    def on_screen_resume(self, event: ScreenResume) -> None:
        self.place()
        self.notices.show()
        self.footer.repaint()

    def on_screen_suspend(self) -> None:
        self.app.call_later(self.footer.repaint)  # once what is laid over this screen is there, and says its keys

    def on_descendant_focus(self) -> None:
        self.footer.repaint()

    def place(self) -> None:
        """Put every pane where it belongs in the present size."""
        size = self.app.size
        is_small = size.width < LEAST.width or size.height < LEAST.height
        if is_small and not self._too_small.display:
            self._in_focus = self.focused
        self._too_small.display = is_small
        self.footer.display = not is_small
        places = {} if is_small else self.places(Size(size.width, size.height - 1))
        for pane in self.panes():
            region = places.get(pane)
            pane.display = region is not None and region.width > 0 and region.height > 0
            if region is not None and pane.display:
                pane.styles.offset = (region.x, region.y)
                pane.styles.width, pane.styles.height = region.width, region.height
        if is_small:
            self._too_small.repaint()
        elif self._in_focus is not None:
            self._in_focus.focus()
            self._in_focus = None
