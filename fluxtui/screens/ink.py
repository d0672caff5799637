"""Text with a role instead of a colour: what panes are made of, and how roles look in a theme.

A pane says what a piece of text *is* (a good thing, a faint one, a key); this module says how that looks. Nothing here
reads markup: a span's text goes to the screen as it is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size, split_graphemes
from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip
from textual.theme import Theme


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


# The theme. Every colour is one of the 256 of xterm, so that a tmux without true colour shows the same.
DARK = Theme(
    name="fluxtui",
    primary="#87afd7",
    secondary="#5f87af",
    accent="#d7af5f",
    foreground="#d0d0d0",
    background="#121212",
    surface="#1c1c1c",
    panel="#262626",
    success="#87af5f",
    warning="#d7af5f",
    error="#d75f5f",
    dark=True,
    variables={"border": "#5f87af", "border-blurred": "#444444", "input-selection-background": "#5f87af 40%"},
)
LIGHT = Theme(
    name="fluxtui-light",
    primary="#005f87",
    secondary="#5f87af",
    accent="#875f00",
    foreground="#303030",
    background="#eeeeee",
    surface="#e4e4e4",
    panel="#dadada",
    success="#5f8700",
    warning="#af5f00",
    error="#af0000",
    dark=False,
    variables={"border": "#005f87", "border-blurred": "#bcbcbc", "input-selection-background": "#87afd7 60%"},
)


class Inks:
    """The styles of roles in one theme, with or without colour."""

    def __init__(self, theme: Theme, has_colour: bool) -> None:
        palette = theme.to_color_system().generate()
        self._background = _opaque(palette["background"], "#121212")
        foreground = _opaque(palette["foreground"], "#d0d0d0")
        colours = {
            name: _opaque(palette[name], "#d0d0d0") for name in ("primary", "secondary", "accent", "success", "warning", "error")
        }
        self._has_colour = has_colour
        self._is_native = theme.ansi
        self._colours = {
            "text": foreground,
            "dim": self._background.blend(foreground, 0.6),
            "faint": self._background.blend(foreground, 0.28),
            "trace": self._background.blend(colours["primary"], 0.45),
            "good": colours["success"],
            "bad": colours["error"],
            "warn": colours["warning"],
            "info": colours["primary"],
            "accent": colours["accent"],
            "focus": colours["primary"],
            "chart": colours["primary"],
            "other": colours["accent"],
            "other2": Color.parse("#5fafaf") if theme.dark else Color.parse("#008787"),
            "other3": colours["error"],
            "other4": foreground,
            "live": Color.parse("#5fafaf") if theme.dark else Color.parse("#008787"),  # going on: green is for what is proven
            "value": self._background.blend(foreground, 0.97),
        }
        self._grounds = {
            "cursor": self._background.blend(colours["primary"], 0.22),
            "rest": self._background.blend(foreground, 0.10),
            "found": self._background.blend(colours["accent"], 0.45),
            "bad": self._background.blend(colours["error"], 0.30),
            "good": self._background.blend(colours["success"], 0.25),
            "warn": self._background.blend(colours["warning"], 0.25),
            "panel": self._background.blend(foreground, 0.06),
        }

    @lru_cache(maxsize=20_000)  # noqa: B019 - one Inks lives as long as its theme
    def style(self, role: str, ground: str = "") -> Style:
        """The style of a role over a ground. "%42" is the picture of that number: its placeholders' colour.

        A role is a name, or two colours of a picture's cell ("#102030/#405060": the upper half, the lower). Before a name
        stands '!' for bold, '_' for underlined, '~' for reversed; after it '@' and a ground of its own, over the line's.
        """
        if role.startswith("#"):
            return self._picture(role)
        if role.startswith("%"):
            behind = None if self._is_native else self._background.rich_color
            return Style(color=RichColor.from_ansi(int(role[1:])), bgcolor=behind)
        role, _, own = role.partition("@")
        ground = own or ground
        name = role.lstrip("!_~")
        bold = "!" in role[: len(role) - len(name)]
        underline = "_" in role[: len(role) - len(name)]
        reverse = False
        if not self._has_colour:
            reverse = ground in {"cursor", "found"} or "~" in role[: len(role) - len(name)]
            bold = bold or name in {"bad", "warn", "focus", "accent"} or ground in {"bad", "warn", "good"}
            return Style(bold=bold or None, underline=underline or None, reverse=reverse or None)
        colour = self._colours.get(name, self._colours["text"])
        below = self._grounds.get(ground, None if self._is_native else self._background)
        if "~" in role[: len(role) - len(name)]:
            colour, below = self._background, colour
        return Style(
            color=colour.rich_color, bgcolor=below.rich_color if below else None, bold=bold or None, underline=underline or None
        )

    def _picture(self, role: str) -> Style:
        upper, _, lower = role.partition("/")
        return Style(color=upper, bgcolor=lower or None) if self._has_colour else Style()

    def strip(self, line: Line, width: int) -> Strip:
        """The line in exactly so many cells."""
        segments: list[Segment] = []
        room = width
        for text, role in line.spans:
            length = cells(text)
            if length > room:
                text, length = set_cell_size(text, room), room
            if length:
                segments.append(Segment(text, self.style(role, line.ground)))
                room -= length
            if room <= 0:
                break
        if room > 0:
            segments.append(Segment(" " * room, self.style("text", line.ground)))
        return Strip(segments, width)


def _opaque(value: str, default: str) -> Color:
    """A theme's colour; the default where the theme leaves it to the terminal."""
    colour = Color.parse(value)
    return Color.parse(default) if colour.ansi is not None else colour
