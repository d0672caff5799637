"""How this UI looks: the terminal's kind, the glyphs of its tier, the styles of the present theme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

from fluxtui.screens.drawing.glyphs import Glyphs
from fluxtui.screens.drawing.terminal_kind import TerminalKind
from fluxtui.screens.drawing.theme import Inks


@dataclass(frozen=True, slots=True)
class Look:
    """Made anew when the theme changes."""

    kind: TerminalKind
    glyphs: Glyphs
    inks: Inks


class HasLook(Protocol):
    """An app that says how it looks."""

    look: Look


def look_of(app: object) -> Look:
    """The look of the app that a pane lives in."""
    return cast(HasLook, app).look
