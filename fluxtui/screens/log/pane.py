"""The log: a window of lines over an index of offsets, followed or held; memory does not grow with the file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

from textual.events import Resize
from textual.timer import Timer

from fluxtui.persist.logfile import LogIndex
from fluxtui.screens.drawing.ink import Line, Span, broken
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.keys.dispatch import bindings_for
from fluxtui.screens.keys.movement import MovementKeys
from fluxtui.screens.log.source import LogPage, LogSource

ROOM = 20  # lines read beyond those shown while following: wrapping and growing panes need no wait
STAYS = 0.12  # seconds between two logs that are stayed at: longer than a held key takes to repeat
SHOWN_WITHIN = 0.05  # seconds
AHEAD = 100  # lines read on either side of those shown, so that scrolling seldom waits


class LogPane(Pane, MovementKeys):
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
        self.shown_places = 1  # lines drawn last, in whole or in part: fewer than rows where they are wrapped
        self.was_rotated = False  # since the reader moved last
        self.lost_byte = 0  # where the reader was in the file before
        self._source: LogSource | None = None
        self._turned_at = 0.0  # when another log was asked for last; seconds of the monotonic clock
        self._stays: Timer | None = None  # until the one that is asked for now is read

    # The file

    def open(self, path: Path | None) -> None:
        """Show this log from now on, from its end; None: none."""
        if path != self.path:
            self._turn_to(path)
            self._read()
            self.repaint()

    def open_soon(self, path: Path | None) -> None:
        """The same for a pane that goes with a list. A held key passes a thousand logs: only those stayed at are read."""
        if path == self.path:
            return
        now = time.monotonic()
        is_passing, self._turned_at = now - self._turned_at < STAYS, now
        self._turn_to(path)
        if is_passing:
            self._stays = self.set_timer(STAYS, self._read)
            self.repaint()
        else:
            self._read()
            self.set_timer(SHOWN_WITHIN, self.repaint)  # by then the lines are there, and nothing is wiped for nothing

    def _turn_to(self, path: Path | None) -> None:
        self.close()
        self.path, self.page = path, LogPage()
        self.is_following, self.top, self.left, self.was_rotated, self.lost_byte = True, 0, 0, False, 0

    def _read(self) -> None:
        if self.path is not None and self._source is None:
            self._source = LogSource(self.path, self._take_later)
            self._want()
            self._source.start()

    def on_resize(self, event: Resize) -> None:
        self._want()  # a pane is opened before it knows its size, and it may grow

    def open_at(self, path: Path, byte: int) -> None:
        """Show this log where a byte of it stands."""
        self.open(path)
        source = self._source
        if source is None or not byte:
            return

        def find(index: LogIndex) -> None:
            self.call_later(self._opened_at, source, index.line_at(byte), index.count)

        source.ask(find)

    def _opened_at(self, source: LogSource, line: int, count: int) -> None:
        if source is self._source:
            self.is_following, self.top, self._held_at = False, line, count
            self._want()
            self.repaint()

    def close(self) -> None:
        if self._stays is not None:
            self._stays.stop()
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
        if page.generation != self.page.generation:
            self.begun_anew(page)
        if page.moved and not self.is_following:
            self.top, self._held_at = self.top + page.moved, self._held_at + page.moved
        self.page = page
        if not self.is_following:
            self._want()
        self.repaint()

    def begun_anew(self, page: LogPage) -> None:
        """The file was rotated, cut off or replaced: hold the place by its byte, as far as the new one goes."""
        if self.is_following:
            return
        self.was_rotated = True
        if page.held is None:
            self.is_following, self.top = True, 0
        else:
            self.lost_byte, self.top = page.held
            self._held_at = page.count

    # Where the reader is

    @property
    def rows(self) -> int:
        return max(1, self.inner[1])

    @property
    def is_at_end(self) -> bool:
        """Whether what is written next scrolls in."""
        return self.is_following

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
        else:
            self.hold(to)

    def hold(self, line: int) -> None:
        """Show this line first, and stay there."""
        if self.is_following:
            self.is_following, self._held_at = False, self.page.count
        self.top = max(0, min(line, self.page.count - 1))
        self._want()
        self.repaint()

    def follow(self) -> None:
        self.is_following, self.was_rotated = True, False
        if self._source is not None:
            self._source.held = None
        self._want()
        self.repaint()

    def _want(self) -> None:
        """Have the lines read that are shown, and some around them."""
        if self._source is None:
            return
        page, rows = self.page, self.rows
        if self.is_following:
            self._source.want_end(rows + ROOM)
            return
        self._source.held = self.top
        has_all = page.first <= max(0, self.top - rows) and self.top + 2 * rows <= page.first + len(page.lines)
        if not has_all and page.indexed >= 1:
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
        if self.is_at_end:
            return Line(Span("following", "dim")) if self.last() else Line()
        place = f"{self.first + 1} of {self.last()}" if self.page.indexed >= 1 else "counting lines"
        line = Line()
        if self.was_rotated:
            line.add("rotated", "warn").add(f" {self.glyphs.dot} ", "faint")
        line.add(place, "dim")
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
        self.shown_places = at - self.first
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
