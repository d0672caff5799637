"""A screen of the UI as SVG: text as text, boxes, bars, braille and emoji as shapes, so that it looks the same with any font."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from rich.cells import split_graphemes
from rich.color import Color
from rich.style import Style
from textual.strip import Strip

WIDTH, HEIGHT = 8.4, 18.0  # of a cell
FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
_EMOJI = {"🟢": "#6fc276", "🔵": "#5b9bd5", "🟡": "#e0b84c", "⚪": "#8a8a8a"}
_LINES = {  # box drawing: which of left, right, up, down it reaches
    "─": "lr",
    "│": "ud",
    "╭": "rd",
    "╮": "ld",
    "╰": "ru",
    "╯": "lu",
    "━": "LR",
    "┃": "UD",
}
_EIGHTHS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Glyph:
    """One drawn character."""

    x: int
    text: str
    cells: int
    style: Style


def svg(rows: Iterable[Strip], columns: int, background: str, foreground: str) -> str:
    """The rows as one SVG document."""
    shapes: list[str] = []
    count = 0
    for y, strip in enumerate(rows):
        count += 1
        shapes += _row(list(_glyphs(strip)), y, background, foreground)
    width, height = columns * WIDTH + 24, count * HEIGHT + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}">'
        f'<rect width="100%" height="100%" rx="8" fill="{background}"/>'
        f'<g transform="translate(12 12)" font-family="{FONT}" font-size="14" xml:space="preserve">{"".join(shapes)}</g></svg>\n'
    )


def _glyphs(strip: Strip) -> Iterator[Glyph]:
    x = 0
    for text, style, control in strip:
        if control:
            continue
        for start, end, cells in split_graphemes(text)[0]:
            yield Glyph(x, text[start:end], cells, style or Style())
            x += cells


def _row(glyphs: list[Glyph], y: int, background: str, foreground: str) -> list[str]:
    shapes = list(_grounds(glyphs, y, background, foreground))
    run: list[Glyph] = []
    for glyph in glyphs:
        ink = _colours(glyph.style, background, foreground)[0]
        drawn = _shape(glyph, y, ink)
        if drawn is not None:
            shapes.append(drawn)
        if run and (drawn is not None or glyph.text == " " or glyph.style != run[0].style):
            shapes.append(_text(run, y, background, foreground))
            run = []
        if drawn is None and glyph.text != " ":
            run.append(glyph)
    if run:
        shapes.append(_text(run, y, background, foreground))
    return shapes


def _grounds(glyphs: list[Glyph], y: int, background: str, foreground: str) -> Iterator[str]:
    start, colour = 0, background
    for glyph in [*glyphs, None]:
        x = glyph.x if glyph else (glyphs[-1].x + glyphs[-1].cells if glyphs else 0)
        own = _colours(glyph.style, background, foreground)[1] if glyph else ""
        if own != colour:
            if colour not in ("", background):
                yield f'<rect x="{start * WIDTH:.1f}" y="{y * HEIGHT:.0f}" width="{(x - start) * WIDTH + 0.3:.1f}" height="{HEIGHT:.1f}" fill="{colour}"/>'
            start, colour = x, own


def _text(run: list[Glyph], y: int, background: str, foreground: str) -> str:
    ink = _colours(run[0].style, background, foreground)[0]
    text = "".join(glyph.text for glyph in run)
    cells = sum(glyph.cells for glyph in run)
    bold = ' font-weight="bold"' if run[0].style.bold else ""
    line = ' text-decoration="underline"' if run[0].style.underline else ""
    return (
        f'<text x="{run[0].x * WIDTH:.1f}" y="{y * HEIGHT + 13.6:.1f}" textLength="{cells * WIDTH:.1f}" lengthAdjust="spacingAndGlyphs" '
        f'fill="{ink}"{bold}{line}>{escape(text)}</text>'
    )


def _shape(glyph: Glyph, y: int, ink: str) -> str | None:
    """The character as a shape; None where it is text."""
    x0, y0 = glyph.x * WIDTH, y * HEIGHT
    text = glyph.text
    if text in _LINES:
        return _line(text, x0, y0, ink)
    if text in _EMOJI:
        return f'<circle cx="{x0 + WIDTH:.1f}" cy="{y0 + 9:.1f}" r="5.6" fill="{_EMOJI[text]}"/>'
    if text == "✅":
        return (
            f'<rect x="{x0 + 2:.1f}" y="{y0 + 3:.1f}" width="12.4" height="12.4" rx="2.5" fill="#5fa35f"/>'
            f'<path d="M{x0 + 4.8:.1f} {y0 + 9.4:.1f}l2.6 2.8 4.4-5.6" stroke="#fff" stroke-width="1.8" fill="none"/>'
        )
    if text == "❌":
        return f'<path d="M{x0 + 3.4:.1f} {y0 + 4:.1f}l10 10m0-10l-10 10" stroke="#d75f5f" stroke-width="2.6" stroke-linecap="round" fill="none"/>'
    if len(text) == 1 and "\u2800" <= text <= "\u28ff":
        return _braille(ord(text) - 0x2800, x0, y0, ink)
    if text in _EIGHTHS and text != " ":
        height = HEIGHT * _EIGHTHS.index(text) / 8
        return f'<rect x="{x0:.1f}" y="{y0 + HEIGHT - height:.1f}" width="{WIDTH + 0.2:.1f}" height="{height:.1f}" fill="{ink}"/>'
    if text == "▌":
        return f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{WIDTH / 2:.1f}" height="{HEIGHT:.1f}" fill="{ink}"/>'
    if text == "▀":
        return f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{WIDTH + 0.2:.1f}" height="{HEIGHT / 2:.1f}" fill="{ink}"/>'
    return None


def _line(text: str, x0: float, y0: float, ink: str) -> str:
    x, y = x0 + WIDTH / 2, y0 + HEIGHT / 2
    reach = _LINES[text]
    thick = 2.4 if reach.isupper() else 1.0
    ends = {"l": (x0, y), "r": (x0 + WIDTH, y), "u": (x, y0), "d": (x, y0 + HEIGHT)}
    (ax, ay), (bx, by) = (ends[way] for way in reach.lower())
    path = f"M{ax:.1f} {ay:.1f}L{bx:.1f} {by:.1f}" if text in "─│━┃" else f"M{ax:.1f} {ay:.1f}Q{x:.1f} {y:.1f} {bx:.1f} {by:.1f}"
    return f'<path d="{path}" stroke="{ink}" stroke-width="{thick}" fill="none"/>'


def _braille(mask: int, x0: float, y0: float, ink: str) -> str:
    dots = []
    for bit, (column, row) in enumerate(((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))):
        if mask >> bit & 1:
            dots.append(f"M{x0 + 2.1 + 4.2 * column:.1f} {y0 + 2.25 + 4.5 * row:.2f}h.01")
    return f'<path d="{"".join(dots)}" stroke="{ink}" stroke-width="2.6" stroke-linecap="round"/>'


def _colours(style: Style, background: str, foreground: str) -> tuple[str, str]:
    """Foreground and background of a style, as hexadecimal."""
    ink, ground = _hex(style.color, foreground), _hex(style.bgcolor, background)
    return (ground, ink) if style.reverse else (ink, ground)


def _hex(colour: Color | None, default: str) -> str:
    if colour is None or colour.is_default:
        return default
    return colour.get_truecolor().hex
