"""A page of lines that is scrolled: overview, settings, help."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from fluxtui.screens.drawing.ink import Line, Span
from fluxtui.screens.keys.dispatch import bindings_for
from fluxtui.screens.keys.movement import MovementKeys
from fluxtui.screens.pages.page import Page


class Reader(Page, MovementKeys):
    """Subclasses say `text`; the reader scrolls it."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_for("reader")

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.top = 0
        self._total = 0

    def text(self, width: int) -> list[Line]:
        """All lines, at this width."""
        raise NotImplementedError

    def body(self, width: int, height: int) -> list[Line]:
        lines = self.text(max(1, width - 2))
        self._total = len(lines)
        self.top = max(0, min(self.top, self._total - height))
        shown = [Line(" ", ground=line.ground).extend(line) for line in lines[self.top : self.top + height]]
        below = self._total - self.top - len(shown)
        if below and shown:
            shown[-1] = Line(Span(f"{below + 1} more".rjust(width - 1), "dim"))  # in the place of a line, not over its text
        return shown

    def here(self) -> int:
        return self.top

    def last(self) -> int:
        return max(0, self._total - self.inner[1])

    def page_rows(self) -> int:
        return self.inner[1]

    def walk_to(self, place: int) -> None:
        self.top = max(0, min(place, self.last()))
        self.repaint()
