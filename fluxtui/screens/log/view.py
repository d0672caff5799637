"""A log pane that searches, filters, jumps to markers and copies: what the dashboard's own leaves out for calm."""

from __future__ import annotations

from pathlib import Path

from fluxtui.persist.logfile import LogIndex
from fluxtui.screens.drawing.ink import Line, Span, shorten
from fluxtui.screens.keys.dispatch import bindings_for, first_key, front_of
from fluxtui.screens.log.choice import ChoosingPane
from fluxtui.screens.log.scan import folds, is_literal
from fluxtui.screens.log.search import BadPattern, LogSearch
from fluxtui.screens.log.source import LogPage

MARKERS = r"^(TRAINING |ERROR: TRAINING)|attempt \d+ of |checkpoint step-\d+"
SIDEWAYS = 16  # cells


class LogView(ChoosingPane):
    """A log pane that can search and filter."""

    BINDINGS = bindings_for("reader")
    FRAME = "rule"

    def __init__(self, session: str) -> None:
        super().__init__(id="log-view")
        self._session_name = session
        self._markers: LogSearch | None = None
        self._was_marked = False  # all markers have been found once
        self._serial = 0  # of the search that is wanted now
        self._asked_early: tuple[str, bool] | None = None  # before the log was open: pattern, and whether it filters
        self._goes_on: int = 0  # a search that has found nothing yet shall go to its first match: 1 down, -1 up

    def open(self, path: Path | None) -> None:
        super().open(path)
        early, self._asked_early = self._asked_early, None
        if early is not None:
            self.look_for(*early)

    def close(self) -> None:
        super().close()
        if self.search is not None:
            self.search.stop()
        self._drop_markers()
        self.search = self.chosen = None
        self.is_filtered = False

    def _drop_markers(self) -> None:
        if self._markers is not None:
            self._markers.stop()
        self._markers, self._was_marked = None, False

    # The file

    def _take(self, page: LogPage) -> None:
        is_first = not self.page.count and page.count > 0
        if self.chosen is not None and page.moved and not self.is_filtered:
            self.chosen = (self.chosen[0] + page.moved, self.chosen[1] + page.moved)
        super()._take(page)
        if is_first:
            self._search_again()  # a scan of a file that was not there has ended

    def begun_anew(self, page: LogPage) -> None:
        super().begun_anew(page)
        self.chosen = None
        self._search_again()
        key = first_key(self.app, "log-older")
        front_of(self.app).say(f"the log was rotated or restarted: {key} opens the part before", "warn")

    def _search_again(self) -> None:
        """The lines are other ones now: so are those that match, and the markers."""
        self._drop_markers()
        if self.search is not None:
            pattern, filters = self.search.pattern, self.is_filtered
            self.search.stop()
            self._serial += 1
            self._begin(pattern, 0, 0)
            if filters:
                self.begin_filter()

    # Searching

    def look_for(self, pattern: str, filters: bool) -> str:
        """Search for a pattern, or show only what matches; empty: neither. Returns why the pattern cannot be used."""
        if self.search is not None:
            self.search.stop()
        self.search, self.is_filtered, self.chosen = None, False, None
        self._serial += 1
        is_open = self.path is not None and self._source is not None
        self._asked_early = None if is_open or not pattern else (pattern, filters)
        if not pattern or not is_open:
            self._leave_filter()
            return ""
        try:
            place = 0 if filters else self.first
            self._begin(pattern, place, 0 if not place else None)
        except BadPattern as problem:
            self._leave_filter()
            return str(problem)
        self.is_filtered = filters
        self.begin_filter()
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
            self.matches_changed()
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
        if self.is_filtered:
            self.go(self.first + way)
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

    def go_to_marker(self, way: int) -> None:
        """To the next attempt, error or checkpoint."""
        if self.path is None:
            return
        if self.is_filtered:
            front_of(self.app).say("the filter hides the markers: q ends it", "info")
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

    # Drawing and moving sideways

    def do_log_left(self) -> None:
        self.left = max(0, self.left - SIDEWAYS)
        self.repaint()

    def do_log_right(self) -> None:
        if not self.is_wrapped:
            self.left += SIDEWAYS
            self.repaint()

    def heading(self) -> Line:
        is_older = self.path is not None and self.path.suffix == ".1"
        return Line(Span(self._session_name, "!text"), Span("  the log before, training.log.1" if is_older else "  log", "dim"))

    def corner(self, width: int) -> Line:
        line = Line()
        wrapped = Line(Span("wrapped", "dim")) if self.is_wrapped else Line()
        for part in (self._said_of_search(), self._said_of_choice(), wrapped, super().corner(width)):
            if part.spans:
                line.add(f" {self.glyphs.dot} " if line.spans else "", "faint").extend(part)
        return line

    def _said_of_search(self) -> Line:
        search, line = self.search, Line()
        if search is not None:
            number = f"{search.count()}{'+' if search.is_cut else ''}"
            said = f"{number} match{'' if number == '1' else 'es'}" + ("" if search.is_over else ", searching")
            line.add("only " if self.is_filtered else "", "dim").add(shorten(search.pattern, 24), "accent")
            line.add(f" {self.glyphs.dot} ", "faint").add(said, "dim")
        return line

    def marked(self, at: int, text: str) -> tuple[str, str]:
        role, ground = super().marked(at, text)
        search = self.search
        if search is not None and not is_literal(search.pattern) and search.is_match(at):
            ground = "found"
        return role, "cursor" if self._is_chosen(at) else ground

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


def older(path: Path) -> Path:
    """Where the keeper puts what a log held before it was begun anew."""
    return path.with_name(path.name + ".1")
