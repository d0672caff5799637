"""A curve over optimizer steps with its axis labels: the loss on the dashboard, every curve of the metrics page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fluxtui.screens.drawing.chart import Plot, Scale, binned, nice_scale, smoothed
from fluxtui.screens.drawing.ink import Line, Span
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.drawing.words import loss as number

AXIS = 7  # cells of the vertical axis' labels


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve: steps ascend; values may hold NaN where there is none."""

    steps: Sequence[int]
    values: Sequence[float]
    role: str = "chart"
    raw_role: str = ""  # where given, the values are drawn faintly in it and the smoothed ones over them


def span_of(step: int, steps: int) -> int:
    """The last step on the axis of a run in progress.

    It doubles whenever the curve reaches it, and ends at the planned steps: so old points stay where they are while new
    ones come, and no redrawing is needed.
    """
    reach = 64
    while reach < step:
        reach *= 2
    return min(reach, steps) if steps >= step > 0 else reach


def drawn(
    curves: Sequence[Curve],
    first: float,
    last: float,
    width: int,
    height: int,
    tier: Tier,
    wants_log: bool = False,
    marks: Mapping[str, str] | None = None,
) -> tuple[list[Line], Scale]:
    """The curves in a field of so many cells, axis labels at its left; the scale says what a height means."""
    plot = Plot(width - AXIS, height, tier, marks)
    binned_curves: list[tuple[Curve, list[float | None], list[float | None]]] = []
    for curve in curves:
        raw = binned(curve.steps, curve.values, first, last, plot.columns)
        fine = binned(curve.steps, smoothed(curve.values), first, last, plot.columns) if curve.raw_role else raw
        binned_curves.append((curve, raw, fine))
    seen = [value for _, raw, fine in binned_curves for value in (*raw, *fine) if value is not None]
    scale = nice_scale(seen, wants_log)
    for curve, raw, fine in binned_curves:
        if curve.raw_role:
            plot.points(raw, scale, curve.raw_role)
        plot.line(fine, scale, curve.role)
    labels = _labels(scale, height)
    return [Line(Span(labels.get(y, "").rjust(AXIS - 1), "dim"), " ").extend(line) for y, line in enumerate(plot.lines())], scale


def captioned(lines: list[Line], text: str, width: int) -> list[Line]:
    """The chart with a caption at its upper right, where the curve leaves room for it."""
    room = width - len(text)
    if len(lines) < 3 or room < AXIS or lines[0].to(width).text[room - 1 :].strip(" \u2800"):
        return lines
    return [Line(*lines[0].spans).cut(room).add(text, "dim"), *lines[1:]]


def _labels(scale: Scale, height: int) -> dict[int, str]:
    """Row -> label: the ends, and the middle where there is room."""
    if height < 1:
        return {}
    labels = {0: _axis_number(scale.high), height - 1: _axis_number(scale.low)} if height > 1 else {0: _axis_number(scale.high)}
    if height >= 7 and height % 2:
        labels[height // 2] = _axis_number(scale.value(0.5))
    return labels


def _axis_number(value: float) -> str:
    text = number(value)
    return (text.rstrip("0").rstrip(".") or "0") if "." in text and "e" not in text else text
