"""The form for a new session: one question a line, answered by typing; what it comes to stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.events import Click, Key, Paste
from textual.message import Message

from fluxtui.screens.drawing.ink import Line, Span, shorten
from fluxtui.screens.drawing.line_edit import pasted
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.form.answering import BUTTONS, MOST, Answering
from fluxtui.screens.form.fields import Evaluation, Field
from fluxtui.screens.form.keys import KEYS
from fluxtui.screens.keys.movement import WHEEL

LABEL = 24
VALUE = 30  # cells of an answer, where there is room to say behind it what is asked
SENTENCE = 40  # cells that this needs


class Form(Pane):
    """The questions. Typing answers the one in focus; an empty answer means the default, which is shown."""

    DEFAULT_CSS: ClassVar[str] = "Form { height: 1fr; }"
    FRAME = "rule"
    can_focus = True

    class Changed(Message):
        """An answer, or the question in focus, has changed."""

    class Pressed(Message):
        def __init__(self, button: str) -> None:
            super().__init__()
            self.button = button

    def __init__(self, title: str, is_clone: bool, edits: bool, answers: dict[str, str]) -> None:
        super().__init__(id="form")
        self._title, self._edits = title, edits
        self.answering = Answering(is_clone, edits, answers, self._say_changed, self._say_pressed)
        self._to_fix = 0  # things that the examination of the pictures has found
        self._is_examining = False
        self._top = 0
        self._places: Sequence[int] = ()  # the line of each question or button

    def _say_changed(self) -> None:
        self.post_message(self.Changed())

    def _say_pressed(self, button: str) -> None:
        self.post_message(self.Pressed(button))

    @property
    def seen(self) -> Evaluation:
        """What the answers came to when they were looked at last."""
        return self.answering.seen

    def take(self, seen: Evaluation) -> None:
        """What the answers come to."""
        self.answering.take(seen)
        self.repaint()

    def show_all(self) -> None:
        """Ask everything, or only what matters first."""
        self.answering.show_all()
        self.repaint()

    def go(self, at: int) -> None:
        """To a question or button, by its place."""
        self.answering.go(at)
        self.repaint()

    def go_to(self, name: str) -> None:
        """To the question of that name, where it is asked."""
        self.answering.go_to(name)
        self.repaint()

    def show_examined(self, to_fix: int, is_examining: bool) -> None:
        """How the examination of the pictures stands."""
        self._to_fix, self._is_examining = to_fix, is_examining
        self.repaint()

    # Drawing

    def heading(self) -> Line:
        return Line(Span(self._title, "!text"))

    def corner(self, width: int) -> Line:
        wrong = len(self.seen.errors) + self._to_fix
        if wrong:
            return Line(Span(f"{wrong} to fix", "warn"))
        if self._is_examining:
            return Line(Span("looking at the pictures", "dim"))
        return Line(Span("ready", "good")) if self.seen.spec else Line(Span("looking", "dim"))

    def body(self, width: int, height: int) -> list[Line]:
        lines: list[Line] = []
        places: list[int] = []  # the line of each question or button
        group = ""
        for at, asked in enumerate(self.answering.fields):
            if asked.group not in {group, "what"}:
                lines += [Line(), Line(Span(asked.group, "!info"))]
            group = asked.group
            places.append(len(lines))
            lines += self._question(asked, at == self.answering.at, width)
        lines.append(Line())
        for at, (name, label) in enumerate(BUTTONS, len(self.answering.fields)):
            places.append(len(lines))
            lines.append(self._button(name, label, at == self.answering.at))
        self._places = places
        focus = places[self.answering.at]
        self._top = max(0, min(self._top, focus - 1, len(lines) - height))
        if focus + 2 >= self._top + height:
            self._top = min(focus + 3 - height, max(0, len(lines) - height))
        return lines[self._top :]

    def _question(self, asked: Field, is_here: bool, width: int) -> list[Line]:
        error = self.seen.errors.get(asked.name, "")
        line = Line(Span(self.glyphs.pointer if is_here else " ", "!focus"), ground="cursor" if is_here else "")
        line.add(f" {asked.label}".ljust(LABEL), "text" if is_here else "dim")
        room = max(8, width - LABEL - 3)
        answer, default = self.answering.value(asked.name), self.seen.values.get(asked.name, "")
        picker = self.answering.picker
        if is_here and not asked.choices:
            line.extend(self._edited(answer, default, room))
        elif answer:
            line.add(shorten(answer, room, self.glyphs.ellipsis), "bad" if error else "text")
        else:
            line.add(shorten(default, room, self.glyphs.ellipsis), "dim")
        if is_here and asked.choices:
            line.add("   ←→ chooses" if self.glyphs.up == "↑" else "   left, right: choose", "faint")
        elif is_here and not answer and self.answering.is_seen(asked) and self.seen.candidates and not picker.is_open:
            line.add(f"   tab lists {len(self.seen.candidates)}", "faint")
        elif not is_here and line.width <= LABEL + VALUE <= width - SENTENCE:
            line.to(LABEL + VALUE).add(shorten(asked.help, width - LABEL - VALUE, self.glyphs.ellipsis), "faint")
        lines = [line]
        if is_here and picker.is_open:
            return lines + picker.lines(width, LABEL - 1, self.glyphs)
        if error and (is_here or answer):
            lines.append(Line(" " * (LABEL + 1), Span(shorten(error, width - LABEL - 1, self.glyphs.ellipsis), "bad")))
        return lines

    def _edited(self, answer: str, default: str, room: int) -> Line:
        """The answer with the cursor in it; where there is none, the default behind the cursor."""
        if not answer:
            return Line(Span(default[:1] or " ", "~dim"), Span(shorten(default[1:], room - 1, self.glyphs.ellipsis), "dim"))
        return self.answering.edit.drawn(room, self._ghost(answer))

    def _ghost(self, answer: str) -> str:
        """How the first candidate goes on."""
        longer = (one.text for one in self.seen.candidates if one.text.startswith(answer) and one.text != answer)
        return next(longer, "")[len(answer) :]

    def _button(self, name: str, label: str, is_here: bool) -> Line:
        can = bool(self.seen.spec) or name not in {"start", "create"}
        label = "show what matters first" if name == "all" and self.answering.with_all else label
        label = {"start": "save and start", "create": "save"}.get(name, label) if self._edits else label
        line = Line(Span(self.glyphs.pointer if is_here else " ", "!focus"), " ", ground="cursor" if is_here else "")
        return line.add(f"[ {label} ]", ("!good" if name == "start" else "text") if can else "faint")

    # Keys

    def on_key(self, event: Key) -> None:
        """All keys here, one after the other: a binding would be carried out only after the letters typed behind it."""
        action = KEYS.get(event.key)
        if action is not None and action(self.answering):
            event.stop()
            event.prevent_default()
            self.repaint()
            return
        asked = self.answering.question
        if event.character is None or not event.is_printable or asked is None:
            return
        event.stop()
        event.prevent_default()
        if asked.choices:
            if event.character == " ":
                self.answering.side(1)
        else:
            self.answering.insert(event.character)
        self.repaint()

    def on_paste(self, event: Paste) -> None:
        event.stop()
        asked = self.answering.question
        if asked is not None and not asked.choices:
            self.answering.insert(pasted(event.text, MOST))
            self.repaint()

    def on_click(self, event: Click) -> None:
        line = event.y - 1 + self._top
        self.go(max((at for at, place in enumerate(self._places) if place <= line), default=0))

    def on_mouse_scroll_down(self) -> None:
        self.go(self.answering.at + WHEEL)

    def on_mouse_scroll_up(self) -> None:
        self.go(self.answering.at - WHEEL)
