"""What this terminal can show: colours or none, emoji, plain Unicode or ASCII only."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.color import ColorSystem

# How terminals with all colours call themselves in TERM. Over SSH that is all one sees of them: COLORTERM stays behind.
_ALL_COLOURS = ("alacritty", "contour", "foot", "ghostty", "iterm2", "kitty", "rio", "wezterm")


class Tier(enum.StrEnum):
    """Which glyphs may be sent."""

    EMOJI = "emoji"  # two cells wide, coloured by the font
    PLAIN = "plain"  # Unicode of one cell: box drawing, blocks, braille
    ASCII = "ascii"


@dataclass(frozen=True, slots=True)
class TerminalKind:
    """Decided once, when the UI opens."""

    tier: Tier
    has_colour: bool
    colours: ColorSystem = ColorSystem.TRUECOLOR  # how many


def detect(environment: Mapping[str, str], glyphs: str = "") -> TerminalKind:
    """The kind of terminal that this environment describes.

    `environment` must be the one the process was started with: where the locale is C, Python itself rewrites LC_CTYPE
    to C.UTF-8 (PEP 538) and a look at `os.environ` would always see UTF-8. `glyphs` is the user's own choice, from
    config.toml or FLUXTUI_GLYPHS; it wins.
    """
    term = environment.get("TERM", "")
    has_colour = not environment.get("NO_COLOR") and term != "dumb"
    wanted = environment.get("FLUXTUI_GLYPHS", "") or glyphs
    if wanted in set(Tier):
        tier = Tier(wanted)
    elif not speaks_utf8(environment):
        tier = Tier.ASCII
    elif not has_colour or term in {"linux", "vt100", "vt220"}:
        tier = Tier.PLAIN
    else:
        tier = Tier.EMOJI
    return TerminalKind(tier, has_colour, _colours(term, environment.get("COLORTERM", "")))


def _colours(term: str, colorterm: str) -> ColorSystem:
    if colorterm.strip().lower() in {"truecolor", "24bit"} or term.endswith("-direct"):
        return ColorSystem.TRUECOLOR
    if term.startswith(("tmux", "screen")):  # whatever terminal is outside
        return ColorSystem.EIGHT_BIT if "256" in term or term.startswith("tmux") else ColorSystem.STANDARD
    if any(part in _ALL_COLOURS for part in term.split("-")):
        return ColorSystem.TRUECOLOR
    return ColorSystem.EIGHT_BIT if "256" in term else ColorSystem.STANDARD


def speaks_utf8(environment: Mapping[str, str]) -> bool:
    """Whether the locale is UTF-8. No locale at all, as in most containers, counts as UTF-8: the terminal is elsewhere."""
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        value = environment.get(name, "")
        if value:
            return "utf-8" in value.lower() or "utf8" in value.lower()
    return True


def first_environment() -> dict[str, str]:
    """The environment that this process was started with; the present one where the kernel does not tell."""
    try:
        raw = Path("/proc/self/environ").read_bytes()
    except OSError:
        return dict(os.environ)
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
