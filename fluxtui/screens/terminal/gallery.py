"""Real pictures, where the terminal can show them: which way, and those that are shown, by number.

A picture stands on the screen as cells of one character (U+10EEEE) that name its row and column by diacritics and its number
by their colour: kitty's own placeholders. There the terminal puts the picture in their place; elsewhere the painter draws it
over them as sixels. Whatever overwrites the cells removes the picture.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fluxtui.screens.drawing.terminal_kind import TerminalKind, Tier

PLACEHOLDER = "\U0010eeee"
FIRST, LAST = 16, 255  # numbers: colours of the 256 that no terminal takes for the 16 of its theme
# kitty's list of diacritics, the first 128: rowcolumn-diacritics.txt, https://sw.kovidgoyal.net/kitty/graphics-protocol
_RANGES = (
    "0305 030D-030E 0310 0312 033D-033F 0346 034A-034C 0350-0352 0357 035B 0363-036F 0483-0487 0592-0595 0597-0599 059C-05A1 "
    "05A8-05A9 05AB-05AC 05AF 05C4 0610-0617 0657-065B 065D-065E 06D6-06DC 06DF-06E2 06E4 06E7-06E8 06EB-06EC 0730 0732-0733 "
    "0735-0736 073A 073D 073F-0741 0743 0745 0747 0749-074A 07EB-07F1 07F3 0816-0819 081B-0823 0825-0827 0829-082D"
)
DIACRITICS = tuple(
    chr(code)
    for piece in _RANGES.split()
    for code in range(int(piece[:4], 16), int(piece[-4:], 16) + 1)
)  # fmt: skip
MOST_CELLS = 128  # columns or rows of a picture
_PLACE = {mark: at for at, mark in enumerate(DIACRITICS)}


class Way(enum.StrEnum):
    """How a picture gets onto the screen."""

    BLOCKS = "blocks"  # characters: two pixels a cell
    KITTY = "kitty"
    SIXEL = "sixel"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a terminal says of itself."""

    attributes: tuple[int, ...] = ()  # of its reply to DA1; 4: sixels
    cell: tuple[int, int] = (0, 0)  # pixels: width, height; zeros where it does not say


@dataclass(frozen=True, slots=True)
class Placed:
    """One picture, ready to be sent."""

    number: int
    serial: int  # never used twice: the number is
    columns: int
    rows: int
    data: str  # the sequences that show it (sixel, at the cursor), or that hand it over (kitty)


def way_of(environment: Mapping[str, str], kind: TerminalKind) -> Way | None:
    """The way that the environment tells; None where the terminal must be asked."""
    wanted = environment.get("FLUXTUI_PICTURES", "")
    if wanted in set(Way):
        return Way(wanted)
    term = environment.get("TERM", "")
    if not kind.has_colour or kind.tier is Tier.ASCII or term in {"linux", "vt100", "vt220"}:
        return Way.BLOCKS
    if environment.get("TMUX") or environment.get("STY") or term.startswith(("tmux", "screen")):
        return Way.BLOCKS  # they swallow pictures, or leave them standing when another pane comes
    if environment.get("KITTY_WINDOW_ID") or term in {"xterm-kitty", "xterm-ghostty"}:
        return Way.KITTY
    return Way.KITTY if environment.get("TERM_PROGRAM") == "ghostty" else None


class Gallery:
    """The pictures that are or were shown. Made in threads, sent by the painter."""

    def __init__(self, environment: Mapping[str, str], kind: TerminalKind) -> None:
        self.way = way_of(environment, kind)
        self.ask: Callable[[], Answer] = Answer  # the terminal; blocks for a moment, so for threads
        self.is_in_tmux = bool(environment.get("TMUX"))
        self._cell = (0, 0)
        self._is_asked = False
        self._lock = threading.Lock()
        self._placed: dict[int, Placed] = {}
        self._serial = 0

    def settle(self) -> tuple[Way, tuple[int, int]]:
        """The way, and the pixels of a cell. Asks the terminal where nothing else tells; for threads."""
        with self._lock:
            if not self._is_asked and self.way is not Way.BLOCKS:
                self._is_asked = True
                answer = self.ask()
                self._cell = answer.cell
                if self.way is None:
                    self.way = Way.SIXEL if 4 in answer.attributes else Way.BLOCKS
                if self.way is Way.KITTY and self.is_in_tmux and not _passes_through():
                    self.way = Way.BLOCKS
                if self.way is Way.SIXEL and not all(self._cell):
                    self.way = Way.BLOCKS  # a sixel picture whose size in cells nobody knows cannot be placed
            return self.way or Way.BLOCKS, self._cell if all(self._cell) else (10, 20)

    def hang(self, columns: int, rows: int, data: Callable[[int], str]) -> Placed:
        """Give a picture a number; `data` makes its sequences from that. The one that had it before is gone."""
        with self._lock:
            self._serial += 1
            number = FIRST + (self._serial - 1) % (LAST - FIRST + 1)
            placed = self._placed[number] = Placed(number, self._serial, columns, rows, data(number))
            return placed

    def holds(self, placed: Placed) -> bool:
        return self._placed.get(placed.number) is placed

    def placed(self, number: int) -> Placed | None:
        return self._placed.get(number)


def _passes_through() -> bool:
    """Whether this tmux lets a picture through to the terminal behind it. Blocks; for threads."""
    import subprocess

    try:
        done = subprocess.run(["tmux", "show", "-gv", "allow-passthrough"], capture_output=True, text=True, timeout=2)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() in {"on", "all"}


def cell_text(row: int, column: int) -> str:
    """The characters of one cell of a picture."""
    return PLACEHOLDER + DIACRITICS[row] + DIACRITICS[column]


def place_in_picture(text: str) -> tuple[int, int] | None:
    """Row and column that a cell's text names; None where it is no cell of a picture."""
    if not text.startswith(PLACEHOLDER) or len(text) != 3:
        return None
    row, column = _PLACE.get(text[1]), _PLACE.get(text[2])
    return None if row is None or column is None else (row, column)
