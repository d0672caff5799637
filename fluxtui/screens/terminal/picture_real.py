"""A picture as the terminal's own: fitted into cells, few colours, and no more bytes than a slow line bears. For threads."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from fluxtui.screens.drawing.ink import Line, Span
from fluxtui.screens.terminal.gallery import MOST_CELLS, Gallery, Placed, Way, cell_text
from fluxtui.screens.terminal.kitty import handed_over

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 96 << 10  # of one picture, as it is sent
_MOST_PIXELS = {Way.KITTY: 1 << 30, Way.SIXEL: 360_000}  # on the screen: kitty enlarges by itself, sixels are made one by one
_FIRST_PIXELS = 90_000  # of what is sent: more than that has no chance to be few enough bytes unless it is very plain
_LEAST_SIDE = 32  # pixels below which nothing is made smaller for the sake of bytes
_COLOURS = {Way.KITTY: 256, Way.SIXEL: 96}


def hung(upright: Image, width: int, height: int, gallery: Gallery, way: Way, cell: tuple[int, int]) -> Placed:
    """An RGB picture in at most so many cells, of so many pixels each."""
    width, height = min(width, MOST_CELLS), min(height, MOST_CELLS)
    share = min(width * cell[0] / upright.width, height * cell[1] / upright.height)
    share = min(share, math.sqrt(_MOST_PIXELS[way] / (upright.width * upright.height)))
    pixels = (max(1, int(upright.width * share)), max(1, int(upright.height * share)))
    columns, rows = math.ceil(pixels[0] / cell[0]), math.ceil(pixels[1] / cell[1])
    if way is Way.SIXEL:
        data = _sixels(upright, pixels)
        return gallery.hang(columns, rows, lambda _: data)
    png = _png(upright, pixels)
    return gallery.hang(columns, rows, lambda number: handed_over(png, number, columns, rows, gallery.is_in_tmux))


def cells(placed: Placed) -> list[Line]:
    """The lines that stand for the picture on the screen."""
    role = f"%{placed.number}"
    return [Line(Span("".join(cell_text(row, at) for at in range(placed.columns)), role)) for row in range(placed.rows)]


def _png(upright: Image, pixels: tuple[int, int]) -> bytes:
    """Never larger than the picture is: kitty itself makes it as large as its cells."""
    size = _not_above(min(pixels, upright.size), _FIRST_PIXELS)
    while True:
        written = io.BytesIO()
        _reduced(upright, size, Way.KITTY).save(written, "PNG")
        data = written.getvalue()
        if len(data) * 4 // 3 <= MOST_BYTES or max(size) <= _LEAST_SIDE:
            return data
        size = _smaller(size, len(data) * 4 / 3)


def _sixels(upright: Image, pixels: tuple[int, int]) -> str:
    """In its full size, for a sixel is a pixel; where that is too many bytes, of coarser pixels and then of fewer colours."""
    from PIL import Image as Images

    from fluxtui.screens.terminal.sixel import encoded

    size = _not_above(pixels, _FIRST_PIXELS)
    while True:
        reduced = _reduced(upright, size, Way.SIXEL)
        data = encoded(reduced.resize(pixels, Images.Resampling.NEAREST) if size != pixels else reduced)
        if len(data) <= MOST_BYTES or max(size) <= _LEAST_SIDE:
            return data
        size = _smaller(size, len(data))


def _not_above(size: tuple[int, int], most: int) -> tuple[int, int]:
    share = min(1.0, math.sqrt(most / (size[0] * size[1])))
    return max(1, int(size[0] * share)), max(1, int(size[1] * share))


def _smaller(size: tuple[int, int], length: float) -> tuple[int, int]:
    share = min(0.85, max(0.4, math.sqrt(MOST_BYTES / length)))
    return max(1, int(size[0] * share)), max(1, int(size[1] * share))


def _reduced(upright: Image, size: tuple[int, int], way: Way) -> Image:
    from PIL import Image as Images

    enlarges = size[0] >= upright.width
    scaled = upright.resize(size, Images.Resampling.NEAREST if enlarges else Images.Resampling.LANCZOS)
    # dithering is noise, and noise is bytes: it pays where colours are few
    dither = Images.Dither.FLOYDSTEINBERG if way is Way.SIXEL and not enlarges else Images.Dither.NONE
    return scaled.quantize(_COLOURS[way], method=Images.Quantize.MEDIANCUT, dither=dither)
