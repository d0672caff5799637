"""The last step to the terminal: what the compositor drew, compared with what the terminal already shows.

Textual sends a changed widget line whole, each piece with its full colours. Over a slow line that is most of the
traffic, so the painter keeps the cells it has sent and sends only those that differ, with the shortest change of
style between them. It is also the last wall: no control character and, where there is none to be sent, no colour and
no character beyond ASCII gets past it, whatever a widget drew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from rich.cells import split_graphemes
from rich.color import Color, ColorSystem
from rich.console import Console
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

from fluxtui.screens.drawing.terminal_kind import TerminalKind, Tier
from fluxtui.screens.terminal.gallery import PLACEHOLDER, Gallery
from fluxtui.screens.terminal.picture_layer import UNKNOWN, Cell, Look, PictureLayer

_ATTRIBUTES = ((1, "bold"), (2, "dim"), (3, "italic"), (4, "underline"), (7, "reverse"), (9, "strike"))
_GAP = 5  # unchanged cells that are cheaper sent again than jumped over
_IN_ASCII = {
    ord(character): ascii_one
    for characters, ascii_one in (
        ("─━╌┄═▔▁▂", "-"),
        ("│┃▏▎▍▌▕▐╎", "|"),
        ("╭╮╰╯┌┐└┘├┤┬┴┼╔╗╚╝", "+"),
        ("█▉▊▋▇▆▓", "#"),
        ("▅▄▃▒▀", "="),
        ("░·∙", "."),
        ("•●", "*"),
        ("○", "o"),
        ("–—−", "-"),
        ("‘’", "'"),
        ("“”", '"'),
        ("×✗✕", "x"),
        ("✓", "v"),
        ("→▸▶❯›", ">"),
        ("←◂◀❮‹", "<"),
        ("↑▲", "^"),
        ("↓▾▼", "v"),
        ("…", "~"),
        ("\u00a0", " "),
    )
    for character in characters
}


class Frame(CompositorUpdate):
    """The bytes of one update, ready to be sent."""

    def __init__(self, sequence: str) -> None:
        self.sequence = sequence

    def render_segments(self, console: Console) -> str:
        return self.sequence


class Painter:
    """Holds what the terminal shows and turns updates into the difference."""

    def __init__(self, kind: TerminalKind, gallery: Gallery | None = None) -> None:
        self._kind = kind
        self._hanging = PictureLayer(gallery) if gallery is not None else None
        self._rows: list[list[Cell]] = []
        self._width = 0
        self.sent = 0  # characters sent since the start

    def forget(self) -> None:
        """The terminal's content is not known any more (resumed, redrawn by others): the next full update sends all."""
        self._rows = []
        self._width = 0
        if self._hanging is not None:
            self._hanging.forget()

    def farewell(self) -> str:
        """What to send before leaving, for the terminal not to keep our pictures."""
        return self._hanging.farewell() if self._hanging is not None else ""

    def frame(self, update: CompositorUpdate) -> Frame | None:
        """What must be sent so that the terminal shows the update; None where it already does."""
        pieces: list[str] = []
        pen = _Pen(pieces)
        for y, x, strips in self._runs(update):
            row = self._row(y)
            cells = self._cells(strips, self._kind.colours)
            if self._hanging is not None and any(PLACEHOLDER in text for strip in strips for text, _, _ in strip):
                self._hanging.mind(row, x, y, cells)
            self._differ(row, x, y, cells, pen)
        before = ""
        if self._hanging is not None:
            before = self._hanging.before()
            self._hanging.over(self._rows, pieces, pen)
        pen.rest()
        if not pieces:
            return None
        sequence = before + "".join(pieces)
        self.sent += len(sequence)
        return Frame(sequence)

    def _runs(self, update: CompositorUpdate) -> Iterator[tuple[int, int, Iterable[Strip]]]:
        """Each run of strips in the update with the line and the column where it begins."""
        if isinstance(update, LayoutUpdate):
            region = update.region
            if region.width != self._width or region.height != len(self._rows):
                self._width = region.width
                self._rows = [[UNKNOWN] * region.width for _ in range(region.height)]
            for y, strips in enumerate(update.strips, region.y):
                yield y, region.x, strips
        elif isinstance(update, ChopsUpdate):
            for y, x1, x2 in update.spans:
                for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
                    if strip is not None and x < x2 and end > x1:
                        yield y, x, (strip,)

    def _row(self, y: int) -> list[Cell]:
        while len(self._rows) <= y:
            self._rows.append([UNKNOWN] * self._width)
        return self._rows[y]

    def _cells(self, strips: Iterable[Strip], system: ColorSystem) -> list[Cell]:
        """The cells of strips that stand side by side."""
        cells: list[Cell] = []
        for strip in strips:
            for text, style, control in strip:
                if control:
                    continue
                look = look_of(style, system, self._kind.has_colour)
                if text.startswith(PLACEHOLDER):
                    look = (look[0], _number_of_picture(style), look[2])
                if self._kind.tier is Tier.ASCII and not text.isascii():
                    text = in_ascii(text)
                if text.isascii() and text.isprintable():
                    cells.extend([(character, look) for character in text])
                else:
                    cells.extend(_graphemes(text, look))
        return cells

    @staticmethod
    def _differ(row: list[Cell], x: int, y: int, cells: list[Cell], pen: _Pen) -> None:
        """Send the cells that differ from the row, and remember them."""
        if len(row) < x + len(cells):
            row.extend([UNKNOWN] * (x + len(cells) - len(row)))
        if row[x : x + len(cells)] == cells:
            return
        index = 0
        while index < len(cells):
            if row[x + index] == cells[index] or not cells[index][0]:
                index += 1
                continue
            end = index + 1
            last = end
            while end < len(cells) and end - last < _GAP:
                if row[x + end] != cells[end]:
                    last = end + 1
                end += 1
            if last < len(cells) and not cells[last][0]:
                last += 1
            pen.write(x + index, y, cells[index:last])
            index = last
        row[x : x + len(cells)] = cells


class _Pen:
    """Writes cells with the fewest moves and changes of style."""

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces
        self._at: tuple[int, int] | None = None
        self._look: Look = ("", "", "")

    def write(self, x: int, y: int, cells: list[Cell]) -> None:
        add = self._pieces.append
        for text, look in cells:
            if not text:  # the right half of a wide cell: drawn with its left half
                x += 1
                continue
            if self._at != (x, y):
                add(f"\x1b[{y + 1};{x + 1}H")
            if look != self._look:
                add(_change(self._look, look))
                self._look = look
            add(text)
            x += 1
            # Terminals disagree on the width of what is not plain: say where to go on after it.
            is_plain = text.isascii() or "\u2500" <= text <= "\u28ff" or text.startswith(PLACEHOLDER)
            self._at = (x, y) if is_plain else None

    def lose_place(self) -> None:
        """The cursor has been moved by others."""
        self._at = None

    def rest(self) -> None:
        if self._look != ("", "", ""):
            self._pieces.append("\x1b[0m")
            self._look = ("", "", "")


def _change(old: Look, new: Look) -> str:
    """The shortest SGR sequence from one look to another."""
    if old[0] == new[0] and (new[1] or not old[1]) and (new[2] or not old[2]):
        codes = [code for before, code in zip(old[1:], new[1:], strict=True) if before != code]
        return f"\x1b[{';'.join(codes)}m"
    codes = [code for code in new if code]
    return f"\x1b[0;{';'.join(codes)}m" if codes else "\x1b[0m"


@lru_cache(maxsize=40_000)
def look_of(style: Style | None, system: ColorSystem, has_colour: bool) -> Look:
    """The SGR codes of a style; links and meta data are left behind."""
    if style is None:
        return ("", "", "")
    attributes = ";".join(str(code) for code, name in _ATTRIBUTES if getattr(style, name))
    if not has_colour:
        return (attributes, "", "")
    return (attributes, _codes(style.color, system, True), _codes(style.bgcolor, system, False))


def _codes(colour: Color | None, system: ColorSystem, is_foreground: bool) -> str:
    if colour is None or colour.is_default:
        return ""
    return ";".join(colour.downgrade(system).get_ansi_codes(is_foreground))


def _number_of_picture(style: Style | None) -> str:
    """What names a picture to the terminal: one of the 256 as the colour of its placeholders, however many it has."""
    red, green, blue = style.color.get_truecolor() if style is not None and style.color is not None else (0, 0, 0)
    return "" if red or green else f"38;5;{blue}"


@lru_cache(maxsize=4096)
def in_ascii(text: str) -> str:
    """The text with every character beyond ASCII replaced, cell by cell: same width."""
    translated = text.translate(_IN_ASCII)
    spans, _ = split_graphemes(translated)
    return "".join(cluster if (cluster := translated[start:end]).isascii() else "?" * width for start, end, width in spans)


def _graphemes(text: str, look: Look) -> list[Cell]:
    """Cells of text that is not plain ASCII; control and direction-changing characters vanish."""
    cells: list[Cell] = []
    for start, end, width in split_graphemes(text)[0]:
        cluster = "".join(character for character in text[start:end] if not is_unsafe(character))
        if width == 0 or not cluster:
            cells.extend([(" ", look)] * width)
            continue
        cells.append((cluster, look))
        cells.extend([("", look)] * (width - 1))
    return cells


def is_unsafe(character: str) -> bool:
    """C0, C1, DEL and the characters that turn the direction of text."""
    code = ord(character)
    return (
        code < 0x20
        or 0x7F <= code < 0xA0
        or 0x202A <= code <= 0x202E
        or 0x2066 <= code <= 0x2069
        or code in (0x200E, 0x200F, 0x061C)
    )
