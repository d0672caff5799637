"""The widget that everything on a screen is made of: a framed or ruled field of lines, repainted line by line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.events import Blur, Focus, Resize
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from fluxtui.screens.drawing.appearance import look_of
from fluxtui.screens.drawing.glyphs import Glyphs
from fluxtui.screens.drawing.ink import Line, Span, both_ends
from fluxtui.screens.drawing.theme import Inks


class Pane(Widget):
    """A pane draws `body` inside a frame (box), under a rule (a title line only), or bare.

    Subclasses override `heading`, `corner` and `body`, and call `repaint` when what they show has changed: only lines
    that differ are drawn again, and the layout is never asked.
    """

    DEFAULT_CSS: ClassVar[str] = "Pane { height: 1fr; width: 1fr; background: $background; }"
    FRAME: ClassVar[str] = "rule"

    def __init__(self, *, id: str | None = None, classes: str | None = None, frame: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.frame = frame or self.FRAME
        self._lines: list[Line] = []
        self._strips: dict[int, Strip] = {}
        self._inks: Inks | None = None
        self._is_stale = False

    # What subclasses say

    def heading(self) -> Line:
        """The title in the frame's first line."""
        return Line()

    def corner(self, width: int) -> Line:
        """What stands at the right end of the title line, in at most so many cells."""
        return Line()

    def body(self, width: int, height: int) -> list[Line]:
        """The lines inside the frame; missing ones are blank, surplus ones are not shown."""
        return []

    def scroll_mark(self, height: int) -> tuple[int, int] | None:
        """First and last line of the scroll mark in the right border; None where nothing scrolls."""
        return None

    # The rest is drawing

    @property
    def glyphs(self) -> Glyphs:
        return look_of(self.app).glyphs

    @property
    def inner(self) -> tuple[int, int]:
        """Width and height inside the frame."""
        width, height = self.size
        if self.frame == "box":
            return max(0, width - 4), max(0, height - 2)
        if self.frame == "rule":
            return max(0, width - 2), max(0, height - 1)
        return width, height

    def repaint(self) -> None:
        """Draw again once nothing else waits to be told: what several messages change is drawn once."""
        self._is_stale = True
        self.check_idle()

    def on_idle(self) -> None:
        if self._is_stale and self.is_mounted and self.size:
            self._is_stale = False
            self._draw_anew()

    def _draw_anew(self) -> None:
        """Only lines that differ are sent on."""
        inks = look_of(self.app).inks
        lines = self._draw()
        if inks is not self._inks or len(lines) != len(self._lines):
            self._inks, self._lines = inks, lines
            self._strips.clear()
            self.refresh()
            return
        changed = [y for y, (old, new) in enumerate(zip(self._lines, lines, strict=True)) if old != new]
        self._lines = lines
        for y in changed:
            self._strips.pop(y, None)
        if changed:
            width = self.size.width
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    def render_lines(self, crop: Region) -> list[Strip]:
        """Whole lines or parts of them. Textual would look for borders, padding and tints at each line; a pane has none."""
        width, height = self.size
        inks = look_of(self.app).inks
        if inks is not self._inks or len(self._lines) != height:
            self._inks, self._lines, self._is_stale = inks, self._draw(), False
            self._strips.clear()
        self._make_strips([y for y in crop.line_range if y not in self._strips], inks, width)
        strips = [self._strips[y] for y in crop.line_range]
        return strips if crop.column_span == (0, width) else [strip.crop(*crop.column_span) for strip in strips]

    def _make_strips(self, missing: Sequence[int], inks: Inks, width: int) -> None:
        if not missing:
            return
        filters, background = self.get_line_filters(), self.background_colors[1]
        for y in missing:
            strip = inks.strip(self._lines[y] if y < len(self._lines) else Line(), width)
            for line_filter in filters:
                strip = strip.apply_filter(line_filter, background)
            self._strips[y] = strip

    def _draw(self) -> list[Line]:
        """All lines of the widget, frame included."""
        width, height = self.size
        inner_width, inner_height = self.inner
        body = self.body(inner_width, inner_height)[:inner_height]
        body += [Line() for _ in range(inner_height - len(body))]
        if self.frame == "bare":
            return body
        role = "focus" if self.has_focus else "faint"
        top = self._title_line(width, role)
        if self.frame == "rule":
            return [top, *(self._padded(line, inner_width) for line in body)][:height]
        mark = self.scroll_mark(inner_height)
        lines = [top]
        for y, line in enumerate(body):
            is_marked = mark is not None and mark[0] <= y <= mark[1]
            framed = Line(Span(self.glyphs.vertical, role), Span(" "), ground="")
            framed.extend(_grounded(line, inner_width)).add(" ")
            framed.add(self.glyphs.thumb if is_marked else self.glyphs.vertical, role if not is_marked else "dim")
            lines.append(framed)
        lines.append(
            Line(
                Span(
                    self.glyphs.corner_low_left + self.glyphs.horizontal * max(0, width - 2) + self.glyphs.corner_low_right, role
                )
            )
        )
        return lines[:height]

    def _padded(self, line: Line, width: int) -> Line:
        padded = Line(" ", ground=line.ground)
        return padded.extend(line.cut(width))

    def _title_line(self, width: int, role: str) -> Line:
        """The title line: rule, heading, rule, corner, rule."""
        glyphs = self.glyphs
        left_end, right_end = (
            (glyphs.corner_top_left, glyphs.corner_top_right) if self.frame == "box" else (glyphs.horizontal, glyphs.horizontal)
        )
        heading = self.heading()
        left = Line(Span(left_end + glyphs.horizontal, role))
        if heading.spans:
            left.add(" ").extend(heading.cut(max(0, width - 8))).add(" ")
        corner = self.corner(max(0, width - left.width - 6))
        right = Line()
        if corner.width and left.width + corner.width + 5 <= width:
            right.add(" ").extend(corner).add(" ")
        right.add(glyphs.horizontal + right_end, role)
        return both_ends(left.add(glyphs.horizontal * max(0, width - left.width - right.width), role), right, width)

    # Events that change the look of the frame

    def on_resize(self, event: Resize) -> None:
        self._strips.clear()
        self.repaint()

    def on_focus(self, event: Focus) -> None:
        self.repaint()

    def on_blur(self, event: Blur) -> None:
        self.repaint()


def _grounded(line: Line, width: int) -> Line:
    """The line in exactly so many cells, with its ground in each span, so that the frame around it keeps its own."""
    line.to(width)
    if not line.ground:
        return line
    return Line(*(span if "@" in span.role else Span(span.text, f"{span.role}@{line.ground}") for span in line.spans))
