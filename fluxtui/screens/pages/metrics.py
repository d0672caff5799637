"""The curves of a session: loss raw and smoothed, validation, learning rate, gradient norm, seconds a step; with a cursor."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType

from fluxtui.persist.sessions.overview import Overview
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.appearance import look_of
from fluxtui.screens.drawing.chart import Scale
from fluxtui.screens.drawing.curve import AXIS, Curve, drawn
from fluxtui.screens.drawing.ink import Line, Span, both_ends, shorten
from fluxtui.screens.keys.dispatch import Dispatcher, bindings_for
from fluxtui.screens.pages.overlay import ROLES as OVERLAID
from fluxtui.screens.pages.overlay import Overlay, marks_of
from fluxtui.screens.pages.page import Page
from fluxtui.screens.watching.history import History

if TYPE_CHECKING:
    from textual.events import Click

NAMES = {"loss": "loss", "rate": "learning rate", "norm": "gradient norm", "seconds": "seconds a step"}
LEAST = 8  # steps: as far as zooming goes
STRIP = 5  # rows of a small chart


class MetricPage(Page, Dispatcher):
    """One curve large, the others small below where there is room."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_for("metrics")
    context = "metrics"

    def __init__(self, session: Overview) -> None:
        super().__init__()
        self.session: Overview | None = session
        self.history = History()
        self.curve = "loss"
        self.is_log = False
        self.cursor: int | None = None  # a step; None: the newest
        self.window: tuple[float, float] | None = None  # first and last step shown; None: all
        self.overlay = Overlay(self, self.repaint)  # other sessions' curves under this one

    def take_session(self, session: Overview | None) -> None:
        self.session = session

    def take_history(self, history: History) -> None:
        self.history = history
        self.repaint()

    def take_other(self, name: str, history: History) -> None:
        self.overlay.take(name, history)

    def on_unmount(self) -> None:
        self.overlay.let_go()

    def copied(self) -> tuple[str, str]:
        return self._readout(self._cursor_at(), math.inf).text.strip(), "the values at the cursor"

    # Drawing

    def body(self, width: int, height: int) -> list[Line]:
        if not self.history.steps:
            return [Line(), Line(Span("  No step has been made yet.", "dim"))]
        width -= 2
        others = [name for name in NAMES if name != self.curve]
        strips = others if height >= 16 + STRIP else []
        large = height - 2 - (STRIP + 1 if strips else 0)
        lines = [self._title(width), *self._large(width, large), self._readout(self._cursor_at(), width)]
        if strips:
            lines += [Line(), *self._small(strips, width)]
        return [Line(" ").extend(line) for line in lines]

    def _span(self) -> tuple[float, float]:
        return self.window or (0.0, float(max(1, self.history.steps[-1])))

    def _cursor_at(self) -> int:
        """The place of the cursor's step in the history."""
        steps = self.history.steps
        if self.cursor is None:
            return len(steps) - 1
        return min(bisect_left(steps, self.cursor), len(steps) - 1)

    def _title(self, width: int) -> Line:
        line = Line(Span(NAMES[self.curve], "!text"))
        marks = self._marks()
        if self.curve == "loss":
            line.add("  smoothed ", "dim").add("━━", "chart").add("  raw ", "dim").add("··", "trace")
            if self._has_validation():
                line.add("  validation ", "dim").add(2 * marks.get("good", "━"), "good")
        first, last = self._span()
        right = Line(Span(f"steps {int(first)} to {int(last)}{', log' if self.is_log else ''}", "dim"))
        others = self.overlay.others
        room = (width - line.width - right.width - 1) // max(1, len(others)) - 5  # for a name each
        for role, (name, _) in zip(OVERLAID, others, strict=False):
            line.add(f"  {shorten(name, max(4, room), self.glyphs.ellipsis)} ", "dim").add(2 * marks.get(role, "━"), role)
        return both_ends(line, right, width)

    def _marks(self) -> Mapping[str, str]:
        return marks_of(self.glyphs.tier, look_of(self.app).kind.has_colour)

    def _has_validation(self) -> bool:
        return any(not math.isnan(value) for value in self.history.window("validation", 0, math.inf, 1_000_000)[1])

    def _curves(self, name: str) -> list[Curve]:
        first, last = self._span()
        curves = []
        for role, (_, history) in zip(OVERLAID, self.overlay.others, strict=False):
            curves.append(Curve(*history.window(name, first, last), role))
        steps, values = self.history.window(name, first, last)
        curves.append(Curve(steps, values, "chart", "trace" if name == "loss" else ""))
        if name == "loss":
            validation = self.history.window("validation", first, last, 1_000_000)
            measured = [(step, value) for step, value in zip(*validation, strict=True) if not math.isnan(value)]
            if measured:
                curves.append(Curve([step for step, _ in measured], [value for _, value in measured], "good"))
        return curves

    def _large(self, width: int, height: int) -> list[Line]:
        first, last = self._span()
        curves, tier = self._curves(self.curve), self.glyphs.tier
        lines, scale = drawn(curves, first, last, width, height, tier, self.is_log, self._marks())
        return self._with_cursor(lines, scale, width, first, last)

    def _with_cursor(self, lines: list[Line], scale: Scale, width: int, first: float, last: float) -> list[Line]:
        """A faint column at the cursor's step, where the curves leave it free."""
        if self.cursor is None:
            return lines
        step = self.history.steps[self._cursor_at()]
        if not first <= step <= last:
            return lines
        column = AXIS + min(width - AXIS - 1, int((step - first) / max(1e-9, last - first) * (width - AXIS)))
        return [self._marked(line, column, width) for line in lines]

    def _marked(self, line: Line, column: int, width: int) -> Line:
        line.to(width)
        text, at = line.text, 0
        if text[column] not in " \u2800":
            return line
        marked = Line()
        for span in line.spans:
            end = at + len(span.text)
            if at <= column < end:
                cut = column - at
                marked.add(span.text[:cut], span.role).add(self.glyphs.vertical, "faint").add(span.text[cut + 1 :], span.role)
            else:
                marked.add(*span)
            at = end
        return marked

    def _readout(self, at: int, room: float) -> Line:
        """What was measured at the cursor's step. Where not all of it has room some is left out: half a number is another."""
        history = self.history
        if not history.steps:
            return Line()
        with history.lock:
            at = min(at, len(history.steps) - 1)
            values = {name: history.curves[name][at] for name in history.curves}
            step, epoch = history.steps[at], history.epochs[at]
        said = [
            ("epoch", "epoch", str(epoch)),
            ("loss", "loss", words.loss(values["loss"])),
            ("validation", "validation", words.loss(values["validation"])),
            ("rate", "rate", f"{values['rate']:.3g}"),
            ("norm", "norm", f"{values['norm']:.3g}"),
            ("seconds", "s/step", words.step_time(values["seconds"])),
        ]
        said = [one for one in said if not math.isnan(values.get(one[0], 0.0))]
        for dropped in ("", "epoch", "seconds", "norm", "rate", "validation"):
            said = [one for one in said if one[0] != dropped or dropped == self.curve]
            for gap in ("   ", "  "):
                line = Line(Span(f"step {step}", "!text"))
                for name, label, value in said:
                    line.add(f"  epoch {value}" if name == "epoch" else f"{gap}{label} ", "dim")
                    line.add("" if name == "epoch" else value, "text")
                if line.width <= room:
                    return line
        return line

    def _small(self, names: list[str], width: int) -> list[Line]:
        """The other curves side by side."""
        first, last = self._span()
        each = (width - 2 * (len(names) - 1)) // len(names)
        columns = []
        for name in names:
            lines, _ = drawn(self._curves(name), first, last, each, STRIP - 1, self.glyphs.tier, marks=self._marks())
            columns.append([Line(Span(NAMES[name], "dim")), *lines])
        return [self._side_by_side([column[row] for column in columns], each) for row in range(STRIP)]

    @staticmethod
    def _side_by_side(parts: list[Line], each: int) -> Line:
        line = Line()
        for at, part in enumerate(parts):
            line.add("  " if at else "").extend(part.to(each))
        return line

    # Actions

    def do_metric_next(self) -> None:
        names = list(NAMES)
        self.curve = names[(names.index(self.curve) + 1) % len(names)]
        self.repaint()

    def do_metric_log(self) -> None:
        self.is_log = not self.is_log
        self.repaint()

    def do_metric_whole(self) -> None:
        self.window, self.cursor = None, None
        self.repaint()

    def do_metric_left(self) -> None:
        self._move(-1)

    def do_metric_right(self) -> None:
        self._move(1)

    def _move(self, way: int) -> None:
        """The cursor, by a hundredth of what is shown; the window goes with it."""
        steps = self.history.steps
        if not steps:
            return
        first, last = self._span()
        at = self._cursor_at()
        here = steps[at] + way * max(1, int((last - first) / 100))
        to = max(0, min(bisect_left(steps, here), len(steps) - 1))
        if to == at:
            to = max(0, min(at + way, len(steps) - 1))
        self.cursor = steps[to]
        if self.window is not None and not first <= self.cursor <= last:
            shift = self.cursor - (last if self.cursor > last else first)
            self.window = (first + shift, last + shift)
        self.repaint()

    def do_metric_zoom_in(self) -> None:
        self._zoom(0.5)

    def do_metric_zoom_out(self) -> None:
        self._zoom(2.0)

    def _zoom(self, factor: float) -> None:
        steps = self.history.steps
        if not steps:
            return
        first, last = self._span()
        length = max(LEAST, (last - first) * factor)
        newest = float(max(1, steps[-1]))
        if length >= newest:
            self.window = None
        else:
            middle = steps[self._cursor_at()] if self.cursor is not None else (first + last) / 2
            start = max(0.0, min(middle - length / 2, newest - length))
            self.window = (start, start + length)
        self.repaint()

    def do_metric_overlay(self) -> None:
        if self.session is not None:
            self.overlay.choose(self.session)

    def on_click(self, event: Click) -> None:
        if self.history.steps and event.x > AXIS:
            first, last = self._span()
            share = (event.x - 1 - AXIS) / max(1, self.size.width - 2 - AXIS)
            self.cursor = int(first + share * (last - first))
            self.repaint()
