"""Every drawn character by name, in three tiers: emoji, plain Unicode, ASCII."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fluxtui.screens.drawing.terminal_kind import Tier

# State -> (emoji, plain, ASCII). The emoji are those that users of the predecessor know.
_STATES: Mapping[str, tuple[str, str, str]] = {
    "new": ("⚪", "○", "."),
    "queued": ("🟡", "◌", "~"),
    "starting": ("🟡", "◔", "~"),
    "running": ("🟢", "●", ">"),
    "stopping": ("🟡", "◑", "~"),
    "completed": ("✅", "✓", "+"),
    "failed": ("❌", "✗", "x"),
    "stopped": ("🔵", "■", "-"),
    "lost": ("🔵", "◇", "?"),
    "stalled": ("🟡", "▲", "!"),
    "suspended": ("🟡", "▲", "!"),
    "storage": ("🟡", "▲", "!"),
    "silent": ("🟡", "▲", "!"),
    "changed": ("🟡", "▲", "!"),
    "elsewhere": ("🟡", "→", "@"),
    "unreadable": ("🟡", "▲", "!"),
}
ROLES: Mapping[str, str] = {
    "new": "dim",
    "queued": "warn",
    "starting": "warn",
    "running": "live",
    "stopping": "warn",
    "completed": "good",
    "failed": "bad",
    "stopped": "info",
    "lost": "info",
    "stalled": "warn",
    "suspended": "warn",
    "storage": "warn",
    "silent": "warn",
    "changed": "warn",
    "elsewhere": "warn",
    "unreadable": "warn",
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of one tier."""

    tier: Tier
    horizontal: str
    vertical: str
    corner_top_left: str
    corner_top_right: str
    corner_low_left: str
    corner_low_right: str
    thumb: str  # part of a scroll bar
    pointer: str  # before the selected line
    dot: str  # between facts
    ellipsis: str
    enter: str
    up: str
    down: str
    times: str
    yes: str
    no: str
    bullet: str

    def state(self, state: str) -> str:
        """The glyph of a state, padded to the same width for all states of a tier."""
        emoji, plain, ascii_only = _STATES.get(state, ("🟡", "▲", "!"))
        return {Tier.EMOJI: emoji, Tier.PLAIN: plain, Tier.ASCII: ascii_only}[self.tier]


def glyphs_of(tier: Tier) -> Glyphs:
    """The characters that a tier may send."""
    if tier is Tier.ASCII:
        return Glyphs(tier, "-", "|", "+", "+", "+", "+", "#", ">", "|", "~", "enter", "up", "down", "x", "ok", "no", "*")
    return Glyphs(tier, "─", "│", "╭", "╮", "╰", "╯", "┃", "▌", "·", "…", "⏎", "↑", "↓", "×", "✓", "✗", "•")
