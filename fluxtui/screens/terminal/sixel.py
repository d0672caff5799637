"""Sixels: six rows of pixels a band, a pass for each colour in it. DEC STD 070, and xterm's ctlseqs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_BAND = 6
_RUN = re.compile(rb"(.)\1{3,}")
_AS_TEXT = bytes((value + 63) & 0xFF for value in range(256))


def encoded(image: Image) -> str:
    """The sequence that draws a palette image (mode P) with its upper left corner at the cursor. Blocking; for threads."""
    palette = image.getpalette() or []
    data, width = image.tobytes(), image.width
    used = sorted(set(data))
    pieces = [f'\x1bP0;1q"1;1;{width};{image.height}'.encode()]
    for colour in used:
        red, green, blue = (round(100 * part / 255) for part in palette[3 * colour : 3 * colour + 3])
        pieces.append(b"#%d;2;%d;%d;%d" % (colour, red, green, blue))
    for top in range(0, image.height, _BAND):
        rows = [data[y * width : (y + 1) * width] for y in range(top, min(top + _BAND, image.height))]
        passes = [b"#%d" % colour + _pass(rows, colour, width) for colour in sorted(set(b"".join(rows)))]
        pieces.append(b"$".join(passes) + b"-")
    return b"".join(pieces).removesuffix(b"-").decode("ascii") + "\x1b\\"


def _pass(rows: list[bytes], colour: int, width: int) -> bytes:
    """The pixels of one colour in one band, runs shortened, blanks at the end left out."""
    merged = 0
    for bit, row in enumerate(rows):
        table = bytearray(256)
        table[colour] = 1 << bit
        merged |= int.from_bytes(row.translate(bytes(table)), "big")
    text = merged.to_bytes(width, "big").translate(_AS_TEXT).rstrip(b"?")
    return _RUN.sub(lambda run: b"!%d%c" % (len(run[0]), run[0][0]), text)
