"""Real pictures for the painter: transmits each once, draws sixels over their cells, and removes them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fluxtui.screens.terminal.gallery import PLACEHOLDER, Gallery, Placed, Way, place_in_picture
from fluxtui.screens.terminal.kitty import forgotten

Look = tuple[str, str, str]  # SGR codes: attributes, foreground, background
Cell = tuple[str, Look]  # the text of a cell; "" for the right half of a wide one
UNKNOWN: Cell = ("\0", ("", "", ""))  # what a cell shows is not known: nothing equals it


class Writes(Protocol):
    """The painter's pen."""

    def write(self, x: int, y: int, cells: list[Cell]) -> None: ...
    def lose_place(self) -> None: ...


class PictureLayer:
    """Which pictures the terminal has, and which must be drawn again in this frame."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._has: dict[int, int] = {}  # kitty: number -> serial of what the terminal was given
        self._fresh: dict[tuple[int, int], Placed] = {}  # column and row of the upper left cell -> what appears in this frame

    def forget(self) -> None:
        """The terminal may have lost them."""
        self._has.clear()

    def mind(self, row: list[Cell], x: int, y: int, cells: list[Cell]) -> None:
        """Look at what a line will show; where sixels are drawn over its cells, those are taken for shown already."""
        row.extend([UNKNOWN] * (x + len(cells) - len(row)))
        for at, cell in enumerate(cells):
            if not cell[0].startswith(PLACEHOLDER) or row[x + at] == cell:
                continue
            placed, where = self._named(cell)
            if placed is None or where is None:
                cells[at] = (" ", ("", "", cell[1][2]))  # a foreign text that looks like a picture, or one that is gone
                continue
            self._fresh[x + at - where[1], y - where[0]] = placed
            if self._gallery.way is Way.SIXEL:
                row[x + at] = cell

    def _named(self, cell: Cell) -> tuple[Placed | None, tuple[int, int] | None]:
        """The picture that a cell is of, and its row and column in it."""
        where = place_in_picture(cell[0])
        colour = cell[1][1].split(";")
        if where is None or colour[:2] != ["38", "5"] or not colour[-1].isdigit():
            return None, None
        placed = self._gallery.placed(int(colour[-1]))
        if placed is None or where[0] >= placed.rows or where[1] >= placed.columns:
            return None, None
        return placed, where

    def before(self) -> str:
        """What must be sent before the frame: pictures that the terminal does not have yet."""
        if self._gallery.way is not Way.KITTY:
            return ""
        new = {placed.number: placed for placed in self._fresh.values() if self._has.get(placed.number) != placed.serial}
        self._fresh.clear()
        self._has |= {number: placed.serial for number, placed in new.items()}
        return "".join(placed.data for placed in new.values())

    def over(self, rows: Sequence[list[Cell]], pieces: list[str], pen: Writes) -> None:
        """Draw the sixels of this frame, and once more what lies over them."""
        if self._gallery.way is not Way.SIXEL:
            self._fresh.clear()
            return
        for (x, y), placed in self._fresh.items():
            if x < 0 or y < 0 or y + placed.rows > len(rows) - 1:
                continue  # not wholly on the screen, or so low that the terminal would scroll
            pieces.append(f"\x1b[{y + 1};{x + 1}H{placed.data}")
            pen.lose_place()
            for line in range(y, y + placed.rows):
                for column in range(x, min(x + placed.columns, len(rows[line]))):
                    cell = rows[line][column]
                    if cell[0] and not cell[0].startswith((PLACEHOLDER, UNKNOWN[0])):
                        pen.write(column, line, [cell])
        self._fresh.clear()

    def farewell(self) -> str:
        """What frees the terminal's memory of them."""
        numbers, self._has = list(self._has), {}
        return "".join(forgotten(number, self._gallery.is_in_tmux) for number in numbers)
