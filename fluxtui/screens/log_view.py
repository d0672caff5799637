"""A log pane that searches, filters and jumps to markers: what the dashboard's own leaves out for calm."""

from __future__ import annotations

from fluxtui.persist.logfile import LogIndex
from fluxtui.screens.doing import bindings_for, front_of
from fluxtui.screens.ink import Line, Span, shorten
from fluxtui.screens.log_pane import LogPane
from fluxtui.screens.log_scan import folds, is_literal
from fluxtui.screens.log_search import BadPattern, LogSearch

MARKERS = r"^(TRAINING |ERROR: TRAINING)|attempt \d+ of |checkpoint step-\d+"
SIDEWAYS = 16  # cells


class LogView(LogPane):
    """A log pane that can search and filter."""

    BINDINGS = bindings_for("reader")
    FRAME = "rule"

    def __init__(self, session: str) -> None:
        super().__init__(id="log-view")
        self._session_name = session
        self.search: LogSearch | None = None
        self.is_filtered = False
        self._markers: LogSearch | None = None
        self._filter_top = 0  # place among the matches of the line shown first, while filtered
        self._serial = 0  # of the search that is wanted now
        self._goes_on: int = 0  # a search that has found nothing yet shall go to its first match: 1 down, -1 up

    def close(self) -> None:
        super().close()
        for search in (self.search, self._markers):
            if search is not None:
                search.stop()
        self.search = self._markers = None
        self.is_filtered = False

    # Searching

    def look_for(self, pattern: str, filters: bool) -> str:
        """Search for a pattern, or show only what matches; empty: neither. Returns why the pattern cannot be used."""
        if self.search is not None:
            self.search.stop()
        self.search, self.is_filtered = None, False
        self._serial += 1
        if not pattern or self.path is None or self._source is None:
            self._leave_filter()
            return ""
        try:
            place = 0 if filters else self.first
            self._begin(pattern, place, 0 if not place else None)
        except BadPattern as problem:
            self._leave_filter()
            return str(problem)
        self.is_filtered = filters
        self._filter_top = 0
        if not filters:
            self._leave_filter()
            self._goes_on = 1
        self.repaint()
        return ""

    def _begin(self, pattern: str, line: int, offset: int | None) -> None:
        """Start the scan where the reader is; the index says at which byte that is."""
        assert self.path is not None
        assert self._source is not None
        path = self.path
        if offset is not None:
            self.search = LogSearch(path, pattern, offset, line, self._found_later)
            return
        LogSearch.check(pattern)
        self._serial += 1
        serial = self._serial

        def begin(index: LogIndex) -> None:
            search = LogSearch(path, pattern, index.offset_of(line), line, self._found_later)
            self.call_later(self._adopt, search, serial)

        self._source.ask(begin)

    def _adopt(self, search: LogSearch, serial: int) -> None:
        if serial != self._serial or self.search is not None or not self.is_mounted:
            search.stop()
            return
        self.search = search
        self._found(search)

    def _leave_filter(self) -> None:
        if self._source is not None:
            if self.is_following:
                self.follow()
            else:
                self.page = type(self.page)(self.path, self.page.generation, self.page.count, is_read=True)
                self._want()
        self.repaint()

    def _found_later(self, search: LogSearch) -> None:
        if self.is_mounted:
            self.call_later(self._found, search)

    def _found(self, search: LogSearch) -> None:
        if search is not self.search:
            return
        if self.is_filtered:
            self._want_matches()
        elif self._goes_on and search.count():
            way, self._goes_on = self._goes_on, 0
            self.go_to_match(way, self.first - 1 if way > 0 else self.first)
        self.repaint()

    def go_to_match(self, way: int, line: int | None = None) -> None:
        """To the next match, or the one before; around the end where there is none."""
        search = self.search
        if search is None:
            front_of(self.app).say("nothing is searched for yet: / searches", "info")
            return
        here = self.first if line is None else line
        found = search.after(here) if way > 0 else search.before(here)
        if found is None and search.count():
            found = search.lines[0] if way > 0 else search.lines[-1]
        if found is None:
            self._goes_on = 0 if search.is_over else way
            front_of(self.app).say(f"no line has {search.pattern!r}" if search.is_over else "still searching", "info")
            return
        self.hold(found)

    def hold(self, line: int) -> None:
        """Show this line first, and stay there."""
        if self.is_following:
            self.is_following, self._held_at = False, self.page.count
        self.top = min(line, max(0, self.page.count - 1))
        self._want()
        self.repaint()

    def go_to_marker(self, way: int) -> None:
        """To the next attempt, error or checkpoint."""
        if self.path is None:
            return
        if self._markers is None:
            self._markers = LogSearch(self.path, MARKERS, 0, 0, lambda search: self._marked_later(search, way))
            return
        found = self._markers.after(self.first) if way > 0 else self._markers.before(self.first)
        if found is not None:
            self.hold(found)
        elif self._markers.is_over:
            front_of(self.app).say("no marker further on" if way > 0 else "no marker before this", "info")

    def _marked_later(self, search: LogSearch, way: int) -> None:
        if search.is_over and self.is_mounted and self._markers is search and not self._was_marked:
            self._was_marked = True
            self.call_later(self.go_to_marker, way)

    _was_marked = False

    # The window, while filtered

    @property
    def first(self) -> int:
        if self.is_filtered and self.search is not None:
            return self._filter_top
        return super().first

    def go(self, to: int) -> None:
        if not self.is_filtered or self.search is None:
            super().go(to)
            return
        self._filter_top = max(0, min(to, self.search.count() - self.rows))
        self._want_matches()
        self.repaint()

    def follow(self) -> None:
        if self.is_filtered and self.search is not None:
            self.go(self.search.count())
            return
        super().follow()

    def _want_matches(self) -> None:
        if self._source is not None and self.search is not None:
            self._source.want_lines(self.search.part(max(0, self._filter_top - self.rows), 3 * self.rows))

    def do_log_left(self) -> None:
        self.left = max(0, self.left - SIDEWAYS)
        self.repaint()

    def do_log_right(self) -> None:
        if not self.is_wrapped:
            self.left += SIDEWAYS
            self.repaint()

    # Drawing

    def heading(self) -> Line:
        return Line(Span(self._session_name, "!text"), Span("  log", "dim"))

    def corner(self, width: int) -> Line:
        search = self.search
        line = Line()
        if search is not None:
            number = f"{search.count()}{'+' if search.is_cut else ''}"
            said = f"{number} match{'' if number == '1' else 'es'}" + ("" if search.is_over else ", searching")
            line.add("only " if self.is_filtered else "", "dim").add(shorten(search.pattern, 24), "accent").add(f" {said}", "dim")
            line.add(f" {self.glyphs.dot} ", "faint")
        if self.is_wrapped:
            line.add("wrapped", "dim").add(f" {self.glyphs.dot} ", "faint")
        return line.extend(super().corner(width)) if not self.is_filtered else line

    def body(self, width: int, height: int) -> list[Line]:
        search = self.search
        if not self.is_filtered or search is None:
            return super().body(width, height)
        lines: list[Line] = []
        digits = len(str(self.page.count))
        for number in search.part(self._filter_top, height):
            text = self.page.line(number)
            shown = self.glyphs.ellipsis if text is None else text[self.left :]
            role, _ = super().marked(number, text or "")
            lines.append(Line(Span(f"{number + 1:>{digits}} ", "faint")).extend(self.styled(shown, role, "")))
        return lines or [Line(Span("no line matches" if search.is_over else "searching", "dim"))]

    def marked(self, at: int, text: str) -> tuple[str, str]:
        role, ground = super().marked(at, text)
        search = self.search
        if search is not None and not is_literal(search.pattern) and search.is_match(at):
            ground = "found"
        return role, ground

    def styled(self, text: str, role: str, ground: str) -> Line:
        """The line, with what was searched for standing out where it is plain text."""
        search = self.search
        if search is None or not is_literal(search.pattern):
            return super().styled(text, role, ground)
        pattern = search.pattern
        seen = text.lower() if folds(pattern) else text
        line, at = Line(ground=ground), 0
        if len(seen) != len(text):
            return super().styled(text, role, ground)
        while (found := seen.find(pattern, at)) >= 0:
            line.add(text[at:found], role).add(text[found : found + len(pattern)], f"{role}@found")
            at = found + len(pattern)
        return line.add(text[at:], role)
