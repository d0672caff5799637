"""How roles look: our themes, and the styles of a theme in as many colours as the terminal has."""

from __future__ import annotations

from functools import lru_cache

from rich.cells import set_cell_size
from rich.color import Color as RichColor
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip
from textual.theme import Theme

from fluxtui.screens.drawing.ink import Line, cells
from fluxtui.screens.drawing.terminal_kind import TerminalKind

# Every colour of our own themes is one of the 256 of xterm, so that a tmux without true colour shows the same.
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


# Role -> colour on a dark ground where there are only the sixteen: a theme's muted ones would all come out grey. As the
# terminal's own values, for Textual makes other colours of their names.
_OF_SIXTEEN = {
    "good": "#55ff55",
    "bad": "#ff5555",
    "warn": "#ffff55",
    "accent": "#ffff55",
    "live": "#00aaaa",
    "info": "#5555ff",
    "focus": "#55ffff",
    "chart": "#55ffff",
    "other": "#ffff55",
    "other2": "#ff55ff",
    "other3": "#ff5555",
}
_BLACK, _WHITE = "#000000", "#aaaaaa"


class Inks:
    """The styles of roles in one theme, in as many colours as the terminal has."""

    def __init__(self, theme: Theme, kind: TerminalKind) -> None:
        palette = theme.to_color_system().generate()
        self._background = _opaque(palette["background"], "#121212")
        foreground = _opaque(palette["foreground"], "#d0d0d0")
        colours = {
            name: _opaque(palette[name], "#d0d0d0") for name in ("primary", "secondary", "accent", "success", "warning", "error")
        }
        self._has_colour = kind.has_colour
        self._has_sixteen = kind.colours is ColorSystem.STANDARD
        self._is_dark = theme.dark
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
        if kind.colours is ColorSystem.EIGHT_BIT and theme.dark:
            self._grounds["cursor"] = _grey(self._grounds["cursor"])

    @lru_cache(maxsize=20_000)  # noqa: B019 - one Inks lives as long as its theme
    def style(self, role: str, ground: str = "") -> Style:
        """The style of a role over a ground. "%42" is the picture of that number: the painter makes its colour.

        A role is a name, or two colours of a picture's cell ("#102030/#405060": the upper half, the lower). Before a name
        stands '!' for bold, '_' for underlined, '~' for reversed; after it '@' and a ground of its own, over the line's.
        """
        if role.startswith("#"):
            return self._picture(role)
        if role.startswith("%"):
            behind = None if self._is_native else self._background.rich_color
            return Style(color=RichColor.from_rgb(0, 0, int(role[1:])), bgcolor=behind)  # Textual would turn an ANSI number
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
        ink, behind = colour.rich_color, below.rich_color if below else None
        if self._has_sixteen:
            ink = RichColor.parse(_OF_SIXTEEN[name]) if self._is_dark and name in _OF_SIXTEEN else ink
            if ground in {"cursor", "found"}:
                ink, behind = (RichColor.parse(one) for one in ((_BLACK, _WHITE) if self._is_dark else (_WHITE, _BLACK)))
        if "~" in role[: len(role) - len(name)]:
            ink, behind = self._background.rich_color, ink
        return Style(color=ink, bgcolor=behind, bold=bold or None, underline=underline or None)

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


def _grey(colour: Color) -> Color:
    """The grey of xterm's ramp that is about as light. Rich would take the cube's nearest: for a dark blue a bright teal."""
    red, green, blue = colour.rgb
    step = round((0.2126 * red + 0.7152 * green + 0.0722 * blue - 8) / 10)
    level = 8 + 10 * max(0, min(23, step))
    return Color(level, level, level)


def _opaque(value: str, default: str) -> Color:
    """A theme's colour; the default where the theme leaves it to the terminal."""
    colour = Color.parse(value)
    return Color.parse(default) if colour.ansi is not None else colour
