"""A log pane that can show only the lines that match: the window over the matches, followed or held as that over lines is.

While it is filtered, a *place* is a line's rank among the matches; otherwise it is the line's number.
"""

from __future__ import annotations

from collections.abc import Sequence

from fluxtui.screens.drawing.ink import Line, Span, broken
from fluxtui.screens.log.pane import LogPane
from fluxtui.screens.log.search import LogSearch


class FilteredPane(LogPane):
    """A log pane over all lines, or over those that a search has found."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.search: LogSearch | None = None
        self.is_filtered = False
        self._filter_top = 0  # place shown first, while the matches are not followed
        self._follows_matches = False
        self._matches_at: int | None = None  # matches there were when the reader left their end; None: never was there

    @property
    def matches(self) -> LogSearch | None:
        """What is shown where it is filtered; None: every line."""
        return self.search if self.is_filtered else None

    def numbers(self, place: int, count: int) -> Sequence[int]:
        """The numbers of the lines at some places."""
        if self.matches is not None:
            return self.matches.part(place, count)
        return range(max(0, place), min(place + count, self.page.count))

    def begin_filter(self) -> None:
        """From the first match on; at the end the matches are followed, and all of a few are the end."""
        self._filter_top, self._follows_matches, self._matches_at = 0, False, None

    def matches_changed(self) -> None:
        """There are more, or all are found."""
        matches = self.matches
        if matches is None:
            return
        if matches.is_over and self._matches_at is None:
            self._matches_at = matches.count()
            self._follows_matches = not self._filter_top and matches.count() <= self._rows_at_end()
        self._want_matches()

    def _want_matches(self) -> None:
        if self._source is not None and self.matches is not None:
            self._source.want_lines(list(self.numbers(max(0, self.first - self.rows), 3 * self.rows)))

    def _want(self) -> None:
        if self.matches is None:
            super()._want()
        else:
            self._want_matches()

    # Where the reader is

    @property
    def is_at_end(self) -> bool:
        return self._follows_matches if self.matches is not None else super().is_at_end

    @property
    def first(self) -> int:
        matches = self.matches
        if matches is None:
            return super().first
        return max(0, matches.count() - self._rows_at_end()) if self._follows_matches else self._filter_top

    def _rows_at_end(self) -> int:
        matches = self.matches
        if matches is None or not self.is_wrapped:
            return super()._rows_at_end()
        used = 0
        ends = self.numbers(max(0, matches.count() - self.rows), self.rows)
        for back, number in enumerate(reversed(ends)):
            used += max(1, len(broken(self.page.line(number) or "", self._text_width())))
            if used > self.rows:
                return max(1, back)
        return max(1, len(ends))

    def last(self) -> int:
        return self.matches.count() if self.matches is not None else super().last()

    @property
    def new_lines(self) -> int:
        if self.matches is None:
            return super().new_lines
        if self._follows_matches or self._matches_at is None:
            return 0
        return max(0, self.matches.count() - self._matches_at)

    def go(self, to: int) -> None:
        matches = self.matches
        if matches is None:
            super().go(to)
        elif to >= matches.count() - self._rows_at_end():
            self.follow()
        else:
            self.hold(to)

    def hold(self, line: int) -> None:
        """Show this place first, and stay there."""
        if self.matches is not None:
            if self._follows_matches:
                self._follows_matches, self._matches_at = False, self.matches.count()
            self._filter_top = max(0, min(line, self.matches.count() - 1))
            self._want_matches()
            self.repaint()
        else:
            super().hold(line)

    def follow(self) -> None:
        if self.matches is None:
            super().follow()
            return
        self._follows_matches = True
        self._want_matches()
        self.repaint()

    # Drawing

    def _text_width(self) -> int:
        """Cells of a line's text: while it is filtered, the line's number stands before it."""
        return max(1, self.inner[0] - (self._digits() + 1 if self.matches is not None else 0))

    def _digits(self) -> int:
        return len(str(self.page.count))

    def body(self, width: int, height: int) -> list[Line]:
        matches = self.matches
        if matches is None:
            return super().body(width, height)
        lines: list[Line] = []
        digits, self.shown_places = self._digits(), 0
        for place, number in enumerate(self.numbers(self.first, height), self.first):
            if len(lines) >= height:
                break
            text = self.page.line(number)
            role, ground = self.looks(number, place, text or "")
            shown = self.glyphs.ellipsis if text is None else text if self.is_wrapped else text[self.left :]
            pieces = broken(shown, self._text_width()) if self.is_wrapped else [shown]
            for at, piece in enumerate(pieces or [""]):
                gutter = f"{number + 1 if not at else '':>{digits}} "
                lines.append(Line(Span(gutter, "faint"), ground=ground).extend(self.styled(piece, role, ground)))
            self.shown_places += 1
        return lines or [Line(Span("no line matches" if matches.is_over else "searching", "dim"))]

    def looks(self, number: int, place: int, text: str) -> tuple[str, str]:
        """Role and ground of a line that the filter lets through."""
        return super().marked(number, text)
