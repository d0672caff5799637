"""Beside the form: what the question in focus means, what the answers come to, what was found in the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fluxtui.persist import dataset_folder
from fluxtui.persist.text import clean
from fluxtui.screens.doing import front_of
from fluxtui.screens.form_fields import Evaluation, Field
from fluxtui.screens.ink import Line, Span, wrapped
from fluxtui.screens.pane import Pane

LABEL = 10
_ROLES = {"error": "bad", "warning": "warn"}


class Report(Pane):
    """Help, facts, the data set doctor's findings."""

    DEFAULT_CSS: ClassVar[str] = "Report { height: 1fr; }"
    FRAME = "rule"

    def __init__(self) -> None:
        super().__init__(id="report")
        self._field: Field | None = None
        self._seen = Evaluation({})
        self._examined: Mapping[str, Any] | None = None
        self._examining = ""

    def show(self, field: Field | None, seen: Evaluation) -> None:
        self._field, self._seen = field, seen
        self.repaint()

    def heading(self) -> Line:
        return Line(Span("what it comes to", "text"))

    def body(self, width: int, height: int) -> list[Line]:
        lines: list[Line] = []
        field = self._field
        if field is not None:
            told = f"{field.help[:1].upper()}{field.help[1:]}"
            lines += [Line(Span(piece)) for piece in wrapped(told, width)] if told else []
            if field.expected:
                lines += [Line(Span(piece, "dim")) for piece in wrapped(field.expected, width)]
            choices = ", ".join(choice or "none" for choice in field.choices)
            lines += [Line(Span(piece, "dim")) for piece in wrapped(choices, width)] if choices else []
            error = self._seen.errors.get(field.name, "")
            lines += [Line(Span(piece, "bad")) for piece in wrapped(error, width)] if error else []
        lines += self._candidates(width)
        lines.append(Line())
        for label, value in self._seen.facts:
            pieces = wrapped(value, max(8, width - LABEL))
            lines += [Line(Span((label if not at else "").ljust(LABEL), "dim"), Span(piece)) for at, piece in enumerate(pieces)]
        return lines + self._findings(width)

    def _candidates(self, width: int) -> list[Line]:
        candidates = self._seen.candidates
        if not candidates:
            return []
        key = Line()
        key.add("→" if self.glyphs.up == "↑" else "right", "!accent").add(" takes the first", "dim")
        return [Line(), *(Line(Span(f"  {candidate}"[:width], "info")) for candidate in candidates[:5]), key]

    def _findings(self, width: int) -> list[Line]:
        if self._examining:
            return [Line(), Line(Span(self._examining, "dim"))]
        report = self._examined
        if report is None:
            return []
        mood = "good" if report.get("ok") else "bad"
        verdict = "a training can start from these" if report.get("ok") else "a training would be refused until this is mended"
        lines = [Line(), Line(Span(f"{report.get('images', 0)} pictures examined", "dim"))]
        lines += [Line(Span(piece, mood)) for piece in wrapped(verdict, width)]
        for finding in list(report.get("findings", []))[:40]:
            role = _ROLES.get(str(finding.get("level")), "dim")
            lines += [Line(Span(piece, role)) for piece in wrapped(clean(str(finding.get("sentence", "")), 400), width)]
        return lines

    def examine(self, path: str, seen: Evaluation) -> None:
        """Have the data set doctor look at every picture, in a process of its own."""
        if not path:
            front_of(self.app).say("name the data set first", "warn")
            return
        self._examining, self._examined = "examining the pictures", None
        self.repaint()
        sets = seen.spec.dataset if seen.spec else None
        arguments = [str(dataset_folder.resolve(path)), "--lines"]
        if sets is not None:
            arguments += ["--trigger", sets.trigger] if sets.trigger else []
            arguments += ["--resolution", ",".join(map(str, sets.resolution))]
        front_of(self.app).errand_quietly(lambda: self._run(arguments))

    def _run(self, arguments: list[str]) -> None:
        """Runs in a thread."""
        from fluxtui.control import engine

        found: dict[str, Any] = {}

        def take(line: dict[str, Any]) -> None:
            if "report" in line:
                found.update(line["report"])
            elif "item" in line:
                self.app.call_from_thread(self._progress, f"examined {line['item']} of {line.get('items', '?')} pictures")

        code, said = engine.run("check", arguments, take)
        if not found:
            found.update(ok=False, findings=[{"level": "error", "sentence": said or f"the examination ended with code {code}"}])
        self.app.call_from_thread(self._took, found)

    def _progress(self, text: str) -> None:
        self._examining = text
        self.repaint()

    def _took(self, report: Mapping[str, Any]) -> None:
        self._examining, self._examined = "", report
        self.repaint()
