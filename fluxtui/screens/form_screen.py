"""The screen of the form: the questions, and beside them what the answers come to; looked at in a thread while one types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.widget import Widget

from fluxtui.persist.home import Home
from fluxtui.screens.base_screen import BaseScreen
from fluxtui.screens.dialogs.ask import Ask
from fluxtui.screens.form.examination import Examination, verdict
from fluxtui.screens.form.examination import Report as Examined
from fluxtui.screens.form.fields import UNANSWERED, Evaluation, evaluate
from fluxtui.screens.form.plan import Planner
from fluxtui.screens.form.questions import Form
from fluxtui.screens.form.report import Report
from fluxtui.screens.keys.dispatch import bindings_for, first_key, front_of
from fluxtui.screens.notices import NoticeBoard
from fluxtui.screens.session_actions import JobDone

BESIDE = 104  # columns from which the report stands beside the questions


@dataclass(slots=True)
class Draft:
    """A form that is filled in; the app keeps it, so that one that is left loses nothing."""

    origin: str = ""  # the session that is cloned
    has_gpu: bool = False
    edits: bool = False  # the origin itself is changed
    answers: dict[str, str] = field(default_factory=dict)


class FormScreen(BaseScreen):
    """New, a clone of another session, or the settings of one that was not started yet."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_for("form")
    FOOTER: ClassVar[tuple[str, ...]] = ("form",)

    def __init__(self, board: NoticeBoard, home: Home, draft: Draft, make: Callable[[Draft, Evaluation, bool], None]) -> None:
        super().__init__(board)
        self._home, self._draft, self._make = home, draft, make
        title = f"settings of {draft.origin}" if draft.edits else f"new session like {draft.origin}"
        is_clone = bool(draft.origin) and not draft.edits
        self.labels = {"form-start": "save and start"} if draft.edits else {}  # of the footer
        self.form = Form(title if draft.origin else "new session", is_clone, draft.edits, draft.answers)
        self.examination = Examination(lambda done: self.app.post_message(JobDone(done)), self._examined)
        self.report = Report(self.examination)
        self.planner = Planner(home, lambda: self.app.post_message(JobDone(self._planned)))
        self._serial = 0
        self._is_evaluating = False

    def panes(self) -> list[Widget]:
        return [self.form, self.report]

    def places(self, size: Size) -> Mapping[Widget, Region]:
        if size.width >= BESIDE:
            left = size.width * 3 // 5
            return {self.form: Region(0, 0, left, size.height), self.report: Region(left, 0, size.width - left, size.height)}
        low = size.height - 8 if self.report.has_focus else min(9, size.height // 3)
        high = size.height - low
        return {self.form: Region(0, 0, size.width, high), self.report: Region(0, high, size.width, low)}

    def on_mount(self) -> None:
        self.form.focus()
        self.form.go(0)

    def on_unmount(self) -> None:
        self.planner.stop()

    def on_descendant_focus(self) -> None:
        self.place()

    def _show_report(self) -> None:
        self.report.show(self.form.answering.question, self.form.seen, self.planner.facts(self.form.seen.steps))

    def _planned(self) -> None:
        if self.is_mounted:
            self._show_report()

    def on_form_changed(self, message: Form.Changed) -> None:
        self._show_report()
        self._serial += 1
        self._begin_evaluation()

    def _begin_evaluation(self) -> None:
        """Look at the present answers in a thread; at one state of them at a time, however fast somebody types."""
        if self._is_evaluating:
            return
        self._is_evaluating = True
        serial, answers = self._serial, dict(self._draft.answers)
        focus = self.form.answering.question.name if self.form.answering.question else ""
        front_of(self.app).run_quietly(lambda: self._evaluate(serial, answers, focus))

    def _evaluate(self, serial: int, answers: dict[str, str], focus: str) -> None:
        """Runs in the thread."""
        seen = None
        try:
            seen = evaluate(self._home, answers, self._draft.origin, focus, self._draft.has_gpu, self._draft.edits)
        finally:
            self.app.call_from_thread(self._evaluated, serial, seen)

    def _evaluated(self, serial: int, seen: Evaluation | None) -> None:
        self._is_evaluating = False
        if not self.is_mounted:
            return
        if serial != self._serial:
            self._begin_evaluation()  # typed over meanwhile
        elif seen is not None:
            self.examination.hold_to(seen)
            self.form.take(seen)
            self._show_to_fix()
            self.planner.want(seen.spec)
            self._show_report()

    def on_form_pressed(self, message: Form.Pressed) -> None:
        self.press(message.button)

    def press(self, button: str) -> None:
        if button == "leave":
            self.dismiss()
        elif button == "all":
            self.form.show_all()
        elif button == "check":
            self._examine()
        elif self.form.seen.spec is None:
            name = next(iter(self.form.seen.errors), "")
            front_of(self.app).say(self.form.seen.problem or "still looking at the answers", "warn")
            self.form.go_to(name)
        elif button == "start" and (doubt := self._doubt()):
            self.app.push_screen(Ask("start it", doubt, "Start all the same"), self._start_all_the_same)
        else:
            self._finish(button == "start")

    def _doubt(self) -> str:
        """Why a training would fail, as far as the pictures were looked at; empty where nothing speaks against it."""
        key = first_key(self.app, "form-check")
        if self.examination.progress:
            return f"Still looking at the pictures: {self.examination.progress}. What is wrong with them is not known yet."
        errors = self.examination.errors
        if not errors:
            return ""
        more = f", and {len(errors) - 1} more to fix" if len(errors) > 1 else ""
        return f"This training will fail: {errors[0].rstrip('.')}{more}. When it is fixed, {key} looks again."

    def _start_all_the_same(self, answer: bool | None) -> None:
        if answer and self.form.seen.spec is not None:
            self._finish(True)

    def _finish(self, starts: bool) -> None:
        self._make(self._draft, self.form.seen, starts)
        self.dismiss()

    # The pictures

    def _examine(self) -> None:
        """Have the data set doctor look at every picture, in a process of its own."""
        seen = self.form.seen
        path = self._draft.answers.get("dataset.path") or seen.values.get("dataset.path", "")
        if path in ("", UNANSWERED):
            front_of(self.app).say("name the data set first", "warn")
            return
        front_of(self.app).run_quietly(self.examination.begin(path, seen))
        self.report.show_examined(True)
        self._show_to_fix()

    def _examined(self, report: Examined | None) -> None:
        """It has gone on; with a report it is over."""
        if self.is_mounted:
            self.report.show_examined(report is not None)
            self._show_to_fix()
        if report is not None:
            front_of(self.app).say(verdict(report), "good" if report.get("ok") else "bad")

    def _show_to_fix(self) -> None:
        self.form.show_examined(len(self.examination.errors), bool(self.examination.progress))

    # Keys

    def do_form_leave(self) -> None:
        if self.report.has_focus:
            self.form.focus()
        else:
            self.dismiss()

    def do_form_report(self) -> None:
        (self.form if self.report.has_focus else self.report).focus()

    def do_form_start(self) -> None:
        self.press("start")

    def do_form_all(self) -> None:
        self.press("all")

    def do_form_check(self) -> None:
        self.press("check")
