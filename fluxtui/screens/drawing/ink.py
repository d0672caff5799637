"""Text with a role instead of a colour: what panes are made of.

A pane says what a piece of text *is* (a good thing, a faint one, a key); `theme` says how that looks. Nothing here
reads markup: a span's text goes to the screen as it is.
"""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len, set_cell_size, split_graphemes


def cells(text: str) -> int:
    """The cells that a text takes. Most is plain, and Rich looks at each new text character by character."""
    return len(text) if text.isascii() and text.isprintable() else cell_len(text)


class Span(NamedTuple):
    """A piece of text and its role."""

    text: str
    role: str = "text"


class Line:
    """One line: spans from left to right over a ground."""

    __slots__ = ("ground", "spans")

    def __init__(self, *spans: Span | str, ground: str = "") -> None:
        self.spans: list[Span] = [Span(span) if isinstance(span, str) else span for span in spans]
        self.ground = ground

    def add(self, text: str, role: str = "text") -> Line:
        """Append a span; returns the line."""
        if text:
            self.spans.append(Span(text, role))
        return self

    def extend(self, other: Line) -> Line:
        """Append the spans of another line; returns the line."""
        self.spans.extend(other.spans)
        return self

    @property
    def width(self) -> int:
        """Cells."""
        return sum(cells(span.text) for span in self.spans)

    @property
    def text(self) -> str:
        return "".join(span.text for span in self.spans)

    def to(self, column: int, role: str = "text") -> Line:
        """Fill with blanks up to a column, or cut there; returns the line."""
        width = self.width
        if width < column:
            return self.add(" " * (column - width), role)
        return self.cut(column)

    def cut(self, width: int) -> Line:
        """Drop what goes beyond a width, with no mark; returns the line."""
        spans: list[Span] = []
        for span in self.spans:
            length = cells(span.text)
            if length > width:
                if width > 0:
                    spans.append(Span(set_cell_size(span.text, width), span.role))
                break
            spans.append(span)
            width -= length
        self.spans = spans
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Line) and self.ground == other.ground and self.spans == other.spans

    def __hash__(self) -> int:
        return hash((self.ground, tuple(self.spans)))

    def __repr__(self) -> str:
        return f"Line({self.text!r}, ground={self.ground!r})"


def both_ends(left: Line, right: Line, width: int) -> Line:
    """The left line and the right one at the two ends of a width; the left one gives way."""
    room = width - right.width
    if room < 1:
        return left.cut(width)
    return left.to(room).extend(right)


def fit(text: str, width: int, ellipsis: str = "…") -> str:
    """The text in exactly so many cells, cut with an ellipsis where it is longer."""
    if width <= 0:
        return ""
    length = cells(text)
    if length <= width:
        return text + " " * (width - length)
    if width <= len(ellipsis):
        return set_cell_size(text, width)
    return set_cell_size(text, width - len(ellipsis)) + ellipsis


def shorten(text: str, width: int, ellipsis: str = "…") -> str:
    """The text in at most so many cells."""
    return text if cells(text) <= width else fit(text, width, ellipsis)


def wrapped(text: str, width: int) -> list[str]:
    """The text broken at blanks into lines of at most so many cells; what is longer is broken anywhere."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            joined = f"{line} {word}" if line else word
            if cells(joined) <= width:
                line = joined
                continue
            if line:
                lines.append(line)
            pieces = broken(word, width)
            lines.extend(pieces[:-1])
            line = pieces[-1] if pieces else ""
        lines.append(line)
    return lines


def broken(text: str, width: int) -> list[str]:
    """The text in pieces of at most so many cells, broken anywhere."""
    if width < 1 or not text:
        return [text] if text else []
    if text.isascii():
        return [text[at : at + width] for at in range(0, len(text), width)]
    pieces, start, used = [], 0, 0
    for begin, _, wide in split_graphemes(text)[0]:
        if used + wide > width and begin > start:
            pieces.append(text[start:begin])
            start, used = begin, 0
        used += wide
    pieces.append(text[start:])
    return pieces
