"""The form for a new session: one question a line, answered by typing; what it comes to stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.events import Click, Key, Paste
from textual.message import Message

from fluxtui.persist.text import clean
from fluxtui.screens.form_fields import Evaluation, Field, fields
from fluxtui.screens.form_keys import KEYS
from fluxtui.screens.form_picker import Picker
from fluxtui.screens.ink import Line, Span, shorten
from fluxtui.screens.pane import Pane
from fluxtui.screens.walking import WHEEL

LABEL = 24
VALUE = 30  # cells of an answer, where there is room to say behind it what is asked
SENTENCE = 40  # cells that this needs
MOST = 4000  # characters of an answer
BUTTONS = (
    ("start", "create and start"),
    ("create", "create only"),
    ("all", "show every setting"),
    ("check", "examine the pictures"),
    ("leave", "leave"),
)


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

    def __init__(self, title: str, is_clone: bool, edits: bool = False) -> None:
        super().__init__(id="form")
        self._title, self._is_clone, self._edits = title, is_clone, edits
        self.with_all = False
        self.answers: dict[str, str] = {}
        self.seen = Evaluation({})
        self._at = 0
        self._cursor = 0
        self._top = 0
        self._picker = Picker()
        self._fields = fields(is_clone, False, edits)

    # What is in focus

    @property
    def question(self) -> Field | None:
        """The question in focus; None on a button."""
        return self._fields[self._at] if self._at < len(self._fields) else None

    @property
    def button(self) -> str:
        return BUTTONS[self._at - len(self._fields)][0] if self._at >= len(self._fields) else ""

    def show_all(self) -> None:
        """Ask everything, or only what matters first; the question or button in focus keeps it, where it is still there."""
        asked, button = self.question, self._at - len(self._fields)
        self.with_all = not self.with_all
        self._fields = fields(self._is_clone, self.with_all, self._edits)
        if asked is None:
            self.go(len(self._fields) + button)
        else:
            self.go(next((at for at, field in enumerate(self._fields) if field.name == asked.name), 0))

    def take(self, seen: Evaluation) -> None:
        """What the answers come to."""
        self.seen = seen
        asked = self.question
        if asked is not None and self._is_seen(asked):
            answer = self._value(asked.name)
            self._picker.take(seen.candidates, answer.strip(), asked.name not in seen.errors)
        self.repaint()

    def _is_seen(self, asked: Field) -> bool:
        """Whether what was looked at last is the present answer to this question."""
        return self.seen.focus == asked.name and self.seen.answers.get(asked.name, "") == self._value(asked.name)

    def _value(self, name: str) -> str:
        return self.answers.get(name, "")

    # Drawing

    def heading(self) -> Line:
        return Line(Span(self._title, "!text"))

    def corner(self, width: int) -> Line:
        wrong = len(self.seen.errors)
        if wrong:
            return Line(Span(f"{wrong} to mend", "warn"))
        return Line(Span("ready", "good")) if self.seen.spec else Line(Span("looking", "dim"))

    def body(self, width: int, height: int) -> list[Line]:
        lines: list[Line] = []
        places: list[int] = []  # the line of each question or button
        group = ""
        for at, asked in enumerate(self._fields):
            if asked.group not in {group, "what"}:
                lines += [Line(), Line(Span(asked.group, "!info"))]
            group = asked.group
            places.append(len(lines))
            lines += self._question(asked, at == self._at, width)
        lines.append(Line())
        for at, (name, label) in enumerate(BUTTONS, len(self._fields)):
            places.append(len(lines))
            lines.append(self._button(name, label, at == self._at))
        self._places = places
        focus = places[self._at]
        self._top = max(0, min(self._top, focus - 1, len(lines) - height))
        if focus + 2 >= self._top + height:
            self._top = min(focus + 3 - height, max(0, len(lines) - height))
        return lines[self._top :]

    _places: Sequence[int] = ()

    def _question(self, asked: Field, is_here: bool, width: int) -> list[Line]:
        error = self.seen.errors.get(asked.name, "")
        line = Line(Span(self.glyphs.pointer if is_here else " ", "!focus"), ground="cursor" if is_here else "")
        line.add(f" {asked.label}".ljust(LABEL), "text" if is_here else "dim")
        room = max(8, width - LABEL - 3)
        answer, default = self._value(asked.name), self.seen.values.get(asked.name, "")
        if is_here and not asked.choices:
            line.extend(self._edited(answer, default, room))
        elif answer:
            line.add(shorten(answer, room, self.glyphs.ellipsis), "bad" if error else "text")
        else:
            line.add(shorten(default, room, self.glyphs.ellipsis), "dim")
        if is_here and asked.choices:
            line.add("   ←→ chooses" if self.glyphs.up == "↑" else "   left, right: choose", "faint")
        elif is_here and not answer and self._is_seen(asked) and self.seen.candidates and not self._picker.is_open:
            line.add(f"   tab lists {len(self.seen.candidates)}", "faint")
        elif not is_here and line.width <= LABEL + VALUE <= width - SENTENCE:
            line.to(LABEL + VALUE).add(shorten(asked.help, width - LABEL - VALUE, self.glyphs.ellipsis), "faint")
        lines = [line]
        if is_here and self._picker.is_open:
            return lines + self._picker.lines(width, LABEL - 1, self.glyphs)
        if error and (is_here or answer):
            lines.append(Line(" " * (LABEL + 1), Span(shorten(error, width - LABEL - 1, self.glyphs.ellipsis), "bad")))
        return lines

    def _edited(self, answer: str, default: str, room: int) -> Line:
        """The answer with the cursor in it; where there is none, the default behind the cursor."""
        start = max(0, self._cursor - room + 2)
        before, under, after = answer[start : self._cursor], answer[self._cursor : self._cursor + 1], answer[self._cursor + 1 :]
        if not answer:
            return Line(Span(default[:1] or " ", "~dim"), Span(shorten(default[1:], room - 1, self.glyphs.ellipsis), "dim"))
        ghost = self._ghost(answer) if self._cursor == len(answer) else ""
        line = Line(Span(before), Span(under or ghost[:1] or " ", "~text"), Span(after[: max(0, room - len(before) - 1)]))
        return line.add(ghost[1:], "faint")

    def _ghost(self, answer: str) -> str:
        """How the first candidate goes on."""
        longer = (one.text for one in self.seen.candidates if one.text.startswith(answer) and one.text != answer)
        return next(longer, "")[len(answer) :]

    def _button(self, name: str, label: str, is_here: bool) -> Line:
        can = bool(self.seen.spec) or name not in {"start", "create"}
        label = "show what matters first" if name == "all" and self.with_all else label
        label = {"start": "save and start", "create": "save"}.get(name, label) if self._edits else label
        line = Line(Span(self.glyphs.pointer if is_here else " ", "!focus"), " ", ground="cursor" if is_here else "")
        return line.add(f"[ {label} ]", ("!good" if name == "start" else "text") if can else "faint")

    # Keys

    def on_key(self, event: Key) -> None:
        """All keys here, one after the other: a binding would be carried out only after the letters typed behind it."""
        deed = KEYS.get(event.key)
        if deed is not None and deed(self):
            event.stop()
            event.prevent_default()
            return
        asked = self.question
        if event.character is None or not event.is_printable or asked is None:
            return
        event.stop()
        event.prevent_default()
        if asked.choices:
            if event.character == " ":
                self.side(1)
            return
        self._insert(event.character)

    def on_paste(self, event: Paste) -> None:
        event.stop()
        if self.question is not None and not self.question.choices:
            self._insert(clean(event.text.replace("\n", " ")[: 2 * MOST], MOST).strip())

    def _insert(self, text: str) -> None:
        if self.question is not None:
            answer = self._value(self.question.name)
            self._set(answer[: self._cursor] + text + answer[self._cursor :], self._cursor + len(text))

    def _set(self, answer: str, cursor: int) -> None:
        assert self.question is not None
        self.answers[self.question.name] = answer[:MOST]
        self._cursor = max(0, min(cursor, len(answer)))
        self._picker.typed()
        self.repaint()
        self.post_message(self.Changed())

    def go(self, at: int) -> None:
        """To a question or button, by its place."""
        self._at = max(0, min(at, len(self._fields) + len(BUTTONS) - 1))
        self._picker.leave()
        self._cursor = len(self._value(self.question.name)) if self.question else 0
        self.repaint()
        self.post_message(self.Changed())

    def go_to(self, name: str) -> None:
        """To the question of that name, where it is asked."""
        self.go(next((at for at, asked in enumerate(self._fields) if asked.name == name), self._at))

    def move(self, by: int) -> None:
        self.go(self._at + by)

    def walk(self, by: int) -> None:
        """In the list of candidates where one is open, else to another question."""
        if self._picker.is_open and self._picker.walk(by):
            self.repaint()
        else:
            self.go(self._at + by)

    def complete(self) -> None:
        """Take the chosen candidate; else go on as far as all candidates agree; else open the list; else the next question."""
        asked, picker = self.question, self._picker
        answer = self._value(asked.name) if asked is not None else ""
        if asked is None or asked.kind not in {"path", "model"} or (self._is_seen(asked) and not self.seen.candidates):
            self.go(self._at + 1)
        elif not self._is_seen(asked):
            picker.expect()
        elif picker.chosen is not None:
            self._pick(picker.chosen.text)
        elif picker.is_open and len(common := picker.common(answer)) > len(answer):
            self._pick(common)
        elif (picker.is_open and picker.walk(1)) or picker.open(self.seen.candidates, answer.strip()):
            self.repaint()
        else:
            self.go(self._at + 1)

    def _pick(self, answer: str) -> None:
        self._set(answer, len(answer))

    def shut_list(self) -> bool:
        """Whether there was a list to shut; without one the key is the screen's."""
        was_open = self._picker.is_open
        if was_open:
            self._picker.shut()
            self.repaint()
        return was_open

    def side(self, way: int) -> None:
        asked = self.question
        if asked is None:
            return
        answer = self._value(asked.name)
        if asked.choices:
            shown = answer or self.seen.values.get(asked.name, "")
            at = asked.choices.index(shown) if shown in asked.choices else 0
            self._set(asked.choices[(at + way) % len(asked.choices)], 0)
        elif way > 0 and self._picker.is_open and self._cursor == len(answer):
            self._pick((self._picker.chosen or self._picker.shown[0]).text)
        elif way > 0 and self._cursor == len(answer) and self._is_seen(asked) and self.seen.candidates:
            if self._picker.open(self.seen.candidates, answer.strip()):
                self.repaint()
        else:
            self._cursor = max(0, min(self._cursor + way, len(answer)))
            self.repaint()

    def jump(self, end: int) -> None:
        self._cursor = len(self._value(self.question.name)) if end and self.question else 0
        self.repaint()

    def rub(self) -> None:
        if self.question is not None and self._cursor:
            answer = self._value(self.question.name)
            self._set(answer[: self._cursor - 1] + answer[self._cursor :], self._cursor - 1)

    def rub_word(self) -> None:
        if self.question is not None:
            answer = self._value(self.question.name)
            head = answer[: self._cursor].rstrip(" /")
            head = head[: max(head.rfind(" "), head.rfind("/")) + 1]
            self._set(head + answer[self._cursor :], len(head))

    def clear(self) -> None:
        if self.question is not None:
            self._set("", 0)

    def press(self) -> None:
        if self.question is None:
            self.post_message(self.Pressed(self.button))
        elif self._picker.chosen is not None:
            self._pick(self._picker.chosen.text)
        else:
            self.go(self._at + 1)

    def on_click(self, event: Click) -> None:
        line = event.y - 1 + self._top
        self.go(max((at for at, place in enumerate(self._places) if place <= line), default=0))

    def on_mouse_scroll_down(self) -> None:
        self.go(self._at + WHEEL)

    def on_mouse_scroll_up(self) -> None:
        self.go(self._at - WHEEL)
