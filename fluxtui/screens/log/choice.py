"""Choosing lines of a log, and copying them: those chosen, or those shown."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fluxtui.persist.logfile import LogIndex
from fluxtui.screens.drawing.ink import Line, Span
from fluxtui.screens.drawing.words import count
from fluxtui.screens.keys.dispatch import first_key
from fluxtui.screens.log.filter import FilteredPane
from fluxtui.screens.terminal import copying

MOST = 10_000  # lines that are copied at once


class ChoosingPane(FilteredPane):
    """A log pane in which a range of places may be chosen."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.chosen: tuple[int, int] | None = None  # places: where it was begun, and where the reader is

    def choose(self) -> None:
        """Choose lines from here on; again: let go. Here: the last line where the end is followed, else the first."""
        here = self.last() - 1 if self.is_at_end else self.first
        self.chosen = None if self.chosen is not None or not self.last() else (here, here)
        if self.chosen is not None:
            self.hold(self.first)  # nothing moves under the reader's hands
        self.repaint()

    def here(self) -> int:
        return self.chosen[1] if self.chosen is not None else super().here()

    def walk_to(self, place: int) -> None:
        if self.chosen is None:
            super().walk_to(place)
            return
        end = max(0, min(place, self.last() - 1))
        self.chosen = (self.chosen[0], end)
        beyond = end - (self.first + self.shown_places - 1)
        if end < self.first or beyond > 0:
            self.hold(end if end < self.first else self.first + beyond)
        self.repaint()

    def do_follow(self) -> None:
        if self.chosen is None:
            self.follow()
        else:
            self.walk_to(self.last() - 1)

    def copy(self) -> None:
        """The lines chosen; where none are, those shown. What is not on the page is read first."""
        if self.chosen is not None:
            first, last = sorted(self.chosen)
            places = min(last - first + 1, MOST)
            what = count(places, "line") if places == last - first + 1 else f"the first {places} of {last - first + 1} lines"
        else:
            first, places, what = self.first, self.shown_places, "the lines shown"
        numbers = self.numbers(first, places)
        self.chosen = None
        known = [text for number in numbers if (text := self.page.line(number)) is not None]
        if len(known) == len(numbers) or self._source is None:
            copying.copy(self.app, "\n".join(known), what)
        else:
            self._source.ask(partial(self._read_and_copy, numbers, what))
        self.repaint()

    def _read_and_copy(self, numbers: Sequence[int], what: str, index: LogIndex) -> None:
        """Runs in the log's thread."""
        texts, size = [], 0
        for number in numbers:
            texts += index.read(number, 1)
            size += len(texts[-1]) + 1 if texts else 0
            if size > copying.MOST:
                break
        self.call_later(copying.copy, self.app, "\n".join(texts), what)

    def _said_of_choice(self) -> Line:
        if self.chosen is None:
            return Line()
        number = abs(self.chosen[0] - self.chosen[1]) + 1
        return Line(Span(f"{count(number, 'line')} marked", "accent"), Span(f", {first_key(self.app, 'copy')} copies", "dim"))

    def _is_chosen(self, place: int) -> bool:
        return self.chosen is not None and min(self.chosen) <= place <= max(self.chosen)

    def looks(self, number: int, place: int, text: str) -> tuple[str, str]:
        role, ground = super().looks(number, place, text)
        return role, "cursor" if self._is_chosen(place) else ground
