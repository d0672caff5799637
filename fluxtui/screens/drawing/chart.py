"""Line charts out of characters: braille (2×4 dots a cell) or, in ASCII, one mark a cell. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fluxtui.screens.drawing.ink import Line
from fluxtui.screens.drawing.terminal_kind import Tier

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column] of a braille cell
_ASCII_ROWS = ("'", "-", "_")  # top, middle, bottom third of a cell
_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " ..::==##"


TINY = 1e-200  # what differs by less is the same
HUGE = 1e300  # what is larger is drawn as this: differences stay finite


@dataclass(frozen=True, slots=True)
class Scale:
    """A vertical axis from `low` to `high`; logarithmic where asked for and possible."""

    low: float
    high: float
    is_log: bool = False

    def share(self, value: float) -> float:
        """0 at the bottom, 1 at the top; may lie outside."""
        if self.is_log:
            if value <= 0:
                return 0.0
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def value(self, share: float) -> float:
        if self.is_log:
            return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        return self.low + share * (self.high - self.low)


def nice_scale(values: Sequence[float], wants_log: bool = False) -> Scale:
    """A scale with round ends around the values; a few far above the rest (first steps, spikes) may be cut off.

    Round ends keep the axis, and with it every dot, in place while new values arrive.
    """
    finite = sorted(min(max(value, -HUGE), HUGE) for value in values if math.isfinite(value))
    if not finite:
        return Scale(0.0, 1.0)
    low = finite[0]
    high = finite[-1]
    usual = finite[min(len(finite) - 1, int(0.98 * len(finite)))]
    if high > usual + 2 * (usual - low) > low:
        high = usual + 0.5 * (usual - low)
    if wants_log and low > TINY and high > low:
        return Scale(_round_down(low), _round_up(high), True)
    if high - low < max(1e-12 * abs(high), TINY):
        pad = abs(low) * 0.1 if abs(low) > TINY else 0.1
        low, high = low - pad, high + pad
    unit = 10.0 ** math.floor(math.log10(high - low))
    for step in (0.1, 0.2, 0.25, 0.5, 1.0):
        if (high - low) / (unit * step) <= 8:
            unit *= step
            break
    bottom, top = math.floor(low / unit) * unit, math.ceil(high / unit) * unit
    if 0 <= bottom < 0.35 * top:
        bottom = 0.0
    return Scale(bottom, top if top > bottom else bottom + unit)


def _round_down(value: float) -> float:
    unit = 10.0 ** math.floor(math.log10(value))
    return max(factor for factor in (1, 2, 5) if factor * unit <= value * 1.000001) * unit


def _round_up(value: float) -> float:
    unit = 10.0 ** math.floor(math.log10(value))
    return min(factor for factor in (1, 2, 5, 10) if factor * unit >= value * 0.999999) * unit


def binned(xs: Sequence[float], ys: Sequence[float], x0: float, x1: float, bins: int) -> list[float | None]:
    """The mean of the values in each of `bins` equal parts of [x0, x1]; None where there is none. xs ascend."""
    sums = [0.0] * bins
    counts = [0] * bins
    width = x1 - x0
    if width <= 0 or bins < 1:
        return [None] * max(bins, 0)
    for x, y in zip(xs, ys, strict=True):
        if x0 <= x <= x1 and math.isfinite(y):
            at = min(bins - 1, int((x - x0) / width * bins))
            sums[at] += y
            counts[at] += 1
    return [total / number if number else None for total, number in zip(sums, counts, strict=True)]


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential moving average over about a 25th of the run, without the bias of its start; what is not finite is skipped."""
    weight = 1 - 1 / max(3.0, len(values) / 25)
    out: list[float] = []
    mean = mass = 0.0
    for value in values:
        if math.isfinite(value):
            mean = weight * mean + (1 - weight) * value
            mass = weight * mass + (1 - weight)
        out.append(mean / mass if mass else math.nan)
    return out


class Plot:
    """A drawing area of so many cells. Later drawings lie over earlier ones, cell by cell."""

    def __init__(self, width: int, height: int, tier: Tier, marks: Mapping[str, str] | None = None) -> None:
        self._marks = marks or {}  # role -> the character that its cells are drawn with, instead of dots
        self.width, self.height, self._tier = max(width, 0), max(height, 0), tier
        self._masks = [[0] * self.width for _ in range(self.height)]
        self._roles = [["chart"] * self.width for _ in range(self.height)]
        self.columns = self.width if tier is Tier.ASCII else self.width * 2
        self.rows = self.height * (3 if tier is Tier.ASCII else 4)

    def dot(self, column: int, row: int, role: str) -> None:
        """One dot; row 0 is the top. Outside: nothing."""
        if not (0 <= column < self.columns and 0 <= row < self.rows):
            return
        if self._tier is Tier.ASCII:
            x, y = column, row // 3
            self._masks[y][x] = 1 + row % 3
        else:
            x, y = column // 2, row // 4
            bit = _DOTS[row % 4][column % 2]
            self._masks[y][x] = self._masks[y][x] | bit if self._roles[y][x] == role else bit
        self._roles[y][x] = role

    def line(self, values: Sequence[float | None], scale: Scale, role: str) -> None:
        """One value a dot column, joined by steps; None interrupts only where no value follows or precedes."""
        before: tuple[int, int] | None = None
        for column, value in enumerate(values):
            if value is None:
                continue
            row = self._row(value, scale)
            if before is not None:
                self._join(before, (column, row), role)
            self.dot(column, row, role)
            before = (column, row)

    def points(self, values: Sequence[float | None], scale: Scale, role: str) -> None:
        """One dot a value."""
        for column, value in enumerate(values):
            if value is not None:
                self.dot(column, self._row(value, scale), role)

    def _row(self, value: float, scale: Scale) -> int:
        share = min(1.0, max(0.0, scale.share(value)))
        return round((1 - share) * (self.rows - 1))

    def _join(self, start: tuple[int, int], end: tuple[int, int], role: str) -> None:
        (x0, y0), (x1, y1) = start, end
        steps = max(abs(x1 - x0), abs(y1 - y0))
        for step in range(1, steps):
            self.dot(round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps), role)

    def lines(self) -> list[Line]:
        """The drawing, from top to bottom."""
        return [self._text(masks, roles) for masks, roles in zip(self._masks, self._roles, strict=True)]

    def _dots(self, mask: int) -> str:
        return _ASCII_ROWS[mask - 1] if self._tier is Tier.ASCII else chr(0x2800 + mask)

    def _text(self, masks: list[int], roles: list[str]) -> Line:
        line = Line()
        text, role = "", "chart"
        for mask, own in zip(masks, roles, strict=True):
            character = " " if not mask else self._marks.get(own) or self._dots(mask)
            if mask and own != role:
                line.add(text, role)
                text, role = "", own
            text += character
        return line.add(text, role)


def sparkline(values: Sequence[float | None], low: float, high: float, tier: Tier) -> str:
    """One character a value; a blank where there is none."""
    bars = _ASCII_BARS if tier is Tier.ASCII else _BARS
    span = high - low or 1.0
    return "".join(" " if value is None else bars[1 + min(7, max(0, int((value - low) / span * 7.999)))] for value in values)


def meter(share: float, width: int, tier: Tier) -> tuple[str, str]:
    """A bar of so many cells: the full part and the rest."""
    full = min(width, max(0, int(share * width + 1e-9)))
    if tier is Tier.ASCII:
        return "#" * full, "." * (width - full)
    return "━" * full, "─" * (width - full)
