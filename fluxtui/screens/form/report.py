"""Beside the form: what the question in focus means, what the answers come to, what was found in the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType

from fluxtui.persist.files.text import clean
from fluxtui.screens.drawing.ink import Line, Span, wrapped
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.form.examination import Examination, verdict
from fluxtui.screens.form.fields import Evaluation, Field
from fluxtui.screens.form.plan import Fact
from fluxtui.screens.keys.dispatch import bindings_for, first_key
from fluxtui.screens.keys.movement import MovementKeys

LABEL = 10
LOW = 12  # rows below which facts stand one behind the other
MOST = 200  # findings shown
_ROLES = {"error": "bad", "warning": "warn"}


class Report(Pane, MovementKeys):
    """Findings of the data set doctor, help, facts, the plan. Scrolled with the keys of a list while it has the focus."""

    DEFAULT_CSS: ClassVar[str] = "Report { height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = bindings_for("list")
    FRAME = "rule"
    can_focus = True

    def __init__(self, examination: Examination) -> None:
        super().__init__(id="report")
        self._examination = examination
        self._field: Field | None = None
        self._seen = Evaluation({})
        self._plan: Sequence[Fact] = ()
        self._is_news = False  # the findings have just come: they stand first
        self._top = 0
        self._total = 0

    def show(self, field: Field | None, seen: Evaluation, plan: Sequence[Fact] = ()) -> None:
        if (field.name if field else "") != (self._field.name if self._field else ""):
            self._is_news, self._top = False, 0
        self._field, self._seen, self._plan = field, seen, plan
        self.repaint()

    def show_examined(self, is_news: bool) -> None:
        """The examination has gone on; `is_news`: it has begun or ended, so that it stands first."""
        self._is_news = self._is_news or is_news
        self._top = 0 if is_news else self._top
        self.repaint()

    def heading(self) -> Line:
        return Line(Span("what it comes to", "!text" if self.has_focus else "text"))

    def corner(self, width: int) -> Line:
        rows = self.inner[1]  # the body was drawn just before: its total is known
        if self._total <= rows:
            return Line()
        key = first_key(self.app, "form-report", self.glyphs.tier is Tier.ASCII)
        hint = "esc goes back" if self.has_focus else f"{key} reads it"
        last = min(self._total, self._top + rows)
        return Line(Span(f"{self._top + 1}-{last} of {self._total} {self.glyphs.dot} {hint}", "dim"))

    def body(self, width: int, height: int) -> list[Line]:
        lines = self._text(width)
        self._total = len(lines)
        self._top = max(0, min(self._top, self._total - height))
        return lines[self._top : self._top + height]

    def _text(self, width: int) -> list[Line]:
        """All of it: what is new first, then what the question in focus means."""
        is_low = self.inner[1] < LOW
        blank = [] if is_low else [Line()]
        findings = self._findings(width)
        help_, facts = self._help(width), self._facts(width, is_low)
        if self._is_news or self._examination.progress:
            return [*findings, *blank, *facts, *blank, *help_]
        return [*help_, *blank, *facts, *([*blank, *findings] if findings else [])]

    def _help(self, width: int) -> list[Line]:
        field = self._field
        if field is None:
            return []
        told = f"{field.help[:1].upper()}{field.help[1:]}"
        lines = [Line(Span(piece)) for piece in wrapped(told, width)] if told else []
        if field.expected:
            lines += [Line(Span(piece, "dim")) for piece in wrapped(field.expected, width)]
        choices = ", ".join(choice or "none" for choice in field.choices)
        lines += [Line(Span(piece, "dim")) for piece in wrapped(choices, width)] if choices else []
        error = self._seen.errors.get(field.name, "")
        return lines + ([Line(Span(piece, "bad")) for piece in wrapped(error, width)] if error else [])

    def _facts(self, width: int, is_low: bool) -> list[Line]:
        """One a line; where there are few lines, one behind the other."""
        lines = []
        facts = [*((label, value, "text") for label, value in self._seen.facts), *self._plan]
        if is_low:
            told = f" {self.glyphs.dot} ".join(value if label in value else f"{label} {value}" for label, value, _ in facts)
            is_doubtful = any(role == "warn" for _, _, role in facts)
            return [Line(Span(piece, "warn" if is_doubtful else "text")) for piece in wrapped(told, width)]
        for label, value, role in facts:
            pieces = wrapped(value, max(8, width - LABEL))
            lines += [
                Line(Span((label if not at else "").ljust(LABEL), "dim"), Span(piece, role)) for at, piece in enumerate(pieces)
            ]
        return lines

    def _findings(self, width: int) -> list[Line]:
        if self._examination.progress:
            return [Line(Span(self._examination.progress, "dim"))]
        report = self._examination.report
        if report is None:
            return []
        lines = [Line(Span(piece, "good" if report.get("ok") else "bad")) for piece in wrapped(verdict(report), width)]
        for finding in list(report.get("findings", []))[:MOST]:
            role = _ROLES.get(str(finding.get("level")), "dim")
            lines += [Line(Span(piece, role)) for piece in wrapped(clean(str(finding.get("sentence", "")), 400), width)]
        more = len(report.get("findings", [])) - MOST
        return lines + ([Line(Span(f"{more} more; `fluxtui check` lists them all", "dim"))] if more > 0 else [])

    # Moving

    def here(self) -> int:
        return self._top

    def last(self) -> int:
        return max(0, self._total - self.inner[1])

    def page_rows(self) -> int:
        return self.inner[1]

    def walk_to(self, place: int) -> None:
        self._top = max(0, min(place, self.last()))
        self.repaint()
