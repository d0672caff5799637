"""The log: a window of lines over an index of offsets, followed or held; memory does not grow with the file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fluxtui.screens.doing import bindings_for
from fluxtui.screens.ink import Line, Span, broken
from fluxtui.screens.log_source import LogPage, LogSource
from fluxtui.screens.pane import Pane
from fluxtui.screens.walking import Walker

ROOM = 20  # lines read beyond those shown while following: wrapping and growing panes need no wait
AHEAD = 100  # lines read on either side of those shown, so that scrolling seldom waits


class LogPane(Pane, Walker):
    """Shows one log. Follows its end until the reader moves away; then holds the place and counts what is new."""

    DEFAULT_CSS: ClassVar[str] = "LogPane { height: 1fr; }"
    BINDINGS = bindings_for("reader")
    can_focus = True

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.path: Path | None = None
        self.is_following = True
        self.is_wrapped = False
        self.top = 0  # line shown first, while the place is held
        self.left = 0  # cells scrolled to the right
        self.page = LogPage()
        self._held_at = 0  # lines there were when the reader moved away
        self._source: LogSource | None = None

    # The file

    def open(self, path: Path | None) -> None:
        """Show this log from now on, from its end; None: none."""
        if path == self.path:
            return
        self.close()
        self.path, self.page = path, LogPage()
        self.is_following, self.top, self.left = True, 0, 0
        if path is not None:
            self._source = LogSource(path, self._take_later)
            self._source.want_end(self.rows + ROOM)
            self._source.start()
        self.repaint()

    def close(self) -> None:
        if self._source is not None:
            self._source.stop()
            self._source = None

    def on_unmount(self) -> None:
        self.close()

    def _take_later(self, page: LogPage) -> None:
        """Called by the reading thread."""
        self.call_later(self._take, page)

    def _take(self, page: LogPage) -> None:
        if self._source is None or page.path != self.path:
            return
        if page.generation != self.page.generation and not self.is_following:
            self.is_following, self.top = True, 0  # cut off or begun anew: what was being read is gone
        if page.moved and not self.is_following:
            self.top, self._held_at = self.top + page.moved, self._held_at + page.moved
        self.page = page
        if not self.is_following:
            self._want()
        self.repaint()

    # Where the reader is

    @property
    def rows(self) -> int:
        return max(1, self.inner[1])

    @property
    def first(self) -> int:
        """The line shown first."""
        return max(0, self.page.count - self._rows_at_end()) if self.is_following else self.top

    def _rows_at_end(self) -> int:
        """How many lines of the end fill the pane."""
        if not self.is_wrapped:
            return self.rows
        used = 0
        for back, text in enumerate(reversed(self.page.lines)):
            used += max(1, len(broken(text, self.inner[0])))
            if used > self.rows:
                return max(1, back)
        return max(1, len(self.page.lines))

    @property
    def new_lines(self) -> int:
        """Lines written since the reader moved away."""
        return 0 if self.is_following else max(0, self.page.count - self._held_at)

    def go(self, to: int) -> None:
        """Hold the place at this line; at the end: follow."""
        last = max(0, self.page.count - self._rows_at_end())
        if to >= last:
            self.follow()
            return
        if self.is_following:
            self.is_following, self._held_at = False, self.page.count
        self.top = max(0, to)
        self._want()
        self.repaint()

    def follow(self) -> None:
        self.is_following = True
        if self._source is not None:
            self._source.want_end(self.rows + ROOM)
        self.repaint()

    def _want(self) -> None:
        page, rows = self.page, self.rows
        has_all = page.first <= max(0, self.top - rows) and self.top + 2 * rows <= page.first + len(page.lines)
        if self._source is not None and not has_all and page.indexed >= 1:
            self._source.want(max(0, self.top - AHEAD), rows + 2 * AHEAD)

    def here(self) -> int:
        return self.first

    def last(self) -> int:
        return self.page.count

    def page_rows(self) -> int:
        return self.rows

    def walk_to(self, place: int) -> None:
        self.go(place)

    def do_follow(self) -> None:
        self.follow()

    def do_wrap(self) -> None:
        self.is_wrapped = not self.is_wrapped
        self.left = 0
        self.repaint()

    # Drawing

    def heading(self) -> Line:
        return Line(Span("log", "!text" if self.has_focus else "text"))

    def corner(self, width: int) -> Line:
        if self.path is None:
            return Line()
        if self.is_following:
            return Line(Span("following", "dim")) if self.page.count else Line()
        place = f"{self.first + 1} of {self.page.count}" if self.page.indexed >= 1 else "counting lines"
        line = Line(Span(place, "dim"))
        if self.new_lines:
            line.add(f" {self.glyphs.dot} ", "faint").add(f"+{self.new_lines} new", "accent").add(
                f" {self.glyphs.dot} G follows", "dim"
            )
        return line

    def scroll_mark(self, height: int) -> tuple[int, int] | None:
        if self.page.count <= height:
            return None
        size = max(1, height * height // self.page.count)
        first = round((height - size) * self.first / max(1, self.page.count - height))
        return min(first, height - size), min(first, height - size) + size - 1

    def body(self, width: int, height: int) -> list[Line]:
        page = self.page
        if not page.count:
            said = page.trouble or ("no log yet" if page.is_read or self.path is None else "reading the log")
            return [Line(Span(said, "dim"))]
        lines: list[Line] = []
        at = self.first
        while len(lines) < height and at < page.count:
            text = page.line(at)
            role, ground = self.marked(at, text or "")
            if text is None:
                lines.append(Line(Span(self.glyphs.ellipsis, "faint")))
            elif self.is_wrapped:
                lines += [self.styled(piece, role, ground) for piece in broken(text, width) or [""]]
            else:
                lines.append(self.styled(text[self.left :] if self.left else text, role, ground))
            at += 1
        return lines

    def marked(self, at: int, text: str) -> tuple[str, str]:
        """Role and ground of a line."""
        return role_of(text), ""

    def styled(self, text: str, role: str, ground: str) -> Line:
        return Line(Span(text, role), ground=ground)


def role_of(text: str) -> str:
    """How a line of a log looks: markers stand out, errors are red, the rest is quiet."""
    head = text[:200]
    if head.startswith("====="):
        return "faint"
    if head.startswith(("TRAINING COMPLETED", "Model saved")):
        return "!good"
    if head.startswith(("ERROR: TRAINING", "TRAINING STUCK")):
        return "!bad"
    if head.startswith(("TRAINING STOPPED", "TRAINING RESUMED")):
        return "!info"
    lowered = head.lower()
    if "error" in lowered or "traceback" in lowered or "exception" in lowered:
        return "bad"
    if "warning" in lowered:
        return "warn"
    return "text"
