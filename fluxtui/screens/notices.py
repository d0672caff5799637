"""Notices over the lower right of a screen: they say what happened, and the important ones stay until put away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.timer import Timer

from fluxtui.actions import BY_NAME
from fluxtui.screens.drawing.ink import Line, Span, wrapped
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.keys.dispatch import first_key

SECONDS = 6.0  # that a passing notice is shown
AT_ONCE = 3
WIDTH = 66
MOST_LINES = 6  # of one notice
_ROLES = {"info": "info", "good": "good", "warn": "warn", "bad": "bad"}


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice; `ends` is a monotonic time, or None for one that stays."""

    text: str
    kind: str
    ends: float | None


class NoticeBoard:
    """All notices, whichever screen is on top."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def add(self, text: str, kind: str, stays: bool, now: float | None = None) -> None:
        """A notice of the same text replaces the one before."""
        self.notices = [notice for notice in self.notices if notice.text != text]
        moment = time.monotonic() if now is None else now
        self.notices = [notice for notice in self.notices if notice.ends is None or stays]  # a passing one is replaced
        self.notices.append(Notice(text, kind, None if stays else moment + SECONDS))

    def withdraw(self, text: str) -> None:
        """Take a notice away that is not true any more."""
        self.notices = [notice for notice in self.notices if notice.text != text]

    def expire(self, now: float | None = None) -> None:
        moment = time.monotonic() if now is None else now
        self.notices = [notice for notice in self.notices if notice.ends is None or notice.ends > moment]

    def dismiss(self) -> bool:
        """Put the newest away; whether there was one."""
        if self.notices:
            self.notices.pop()
            return True
        return False


class Notices(Pane):
    """Draws the newest notices over the screen's lower right corner; takes no room where there is none."""

    DEFAULT_CSS: ClassVar[str] = "Notices { layer: notices; dock: bottom; display: none; height: 3; width: 100%; }"
    FRAME = "bare"
    can_focus = False

    def __init__(self, board: NoticeBoard) -> None:
        super().__init__(id="notices")
        self._board = board
        self._timer: Timer | None = None

    def on_mount(self) -> None:
        self.show()

    def show(self) -> None:
        """Draw what the board holds now, and come back when the next one expires."""
        self._board.expire()
        width = max(1, min(WIDTH, self.app.size.width))
        lines = self._texts(width)
        if lines and not self.display:
            self._lines = []  # what it showed last would stand there until it is drawn anew
        self.display = bool(lines)
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        if not lines:
            return
        height = len(lines)
        self.styles.height = height
        self.styles.width = width
        self.styles.offset = (max(0, self.app.size.width - width), -1)
        self.repaint()
        ends = [notice.ends for notice in self._board.notices if notice.ends is not None]
        if ends:
            self._timer = self.set_timer(max(0.05, min(ends) - time.monotonic()), self.show)

    def _texts(self, width: int) -> list[Line]:
        lines: list[Line] = []
        shown = self._board.notices[-AT_ONCE:]
        hidden = len(self._board.notices) - len(shown)
        more = f", +{hidden} more" if hidden else ""
        for notice in shown:
            role = _ROLES[notice.kind]
            pieces = wrapped(notice.text, max(4, width - 4))[:MOST_LINES]
            if notice.ends is None and notice is shown[-1]:
                hint = f"  {self._key()} puts this away{more}"
                pieces = pieces[:-1] + wrapped(pieces[-1] + hint, max(4, width - 4))[:2]
            for piece in pieces:
                lines.append(
                    Line(
                        Span(f"{self.glyphs.pointer} ", f"!{role}"),
                        Span(piece, "text"),
                        ground=notice.kind if notice.kind != "info" else "rest",
                    )
                )
        return lines

    def _key(self) -> str:
        """The key that puts a notice away here: where one types, the short one is text."""
        screen = self.screen if self.is_attached else self.app.screen  # what config.toml has wrong is told before it hangs in one
        contexts: Sequence[str] = getattr(screen, "contexts", ())
        return first_key(self.app, "dismiss" if BY_NAME["dismiss"].contexts & set(contexts) else "put-away")

    def body(self, width: int, height: int) -> list[Line]:
        return self._texts(width)
