"""Answering the form: which question is in focus, what is typed there, and what each key does to it. No widget, no file."""

from __future__ import annotations

from collections.abc import Callable

from fluxtui.screens.drawing.line_edit import LineEdit
from fluxtui.screens.form.fields import Evaluation, Field, fields
from fluxtui.screens.form.picker import Picker

MOST = 4000  # characters of an answer
BUTTONS = (
    ("start", "create and start"),
    ("create", "create only"),
    ("all", "show every setting"),
    ("check", "examine the pictures"),
    ("leave", "leave"),
)


class Answering:
    """The answers under way.

    `changed` is called where an answer or the question in focus is another one now, `pressed` with the button that was pressed.
    """

    def __init__(
        self, is_clone: bool, edits: bool, answers: dict[str, str], changed: Callable[[], None], pressed: Callable[[str], None]
    ) -> None:
        self._is_clone, self._edits = is_clone, edits
        self._changed, self._pressed = changed, pressed
        self.with_all = False
        self.answers = answers  # by the names of the questions
        self.seen = Evaluation({})
        self.at = 0  # question or button in focus
        self._cursor = 0  # characters of the answer before it
        self.picker = Picker()
        self.fields = fields(is_clone, False, edits)

    @property
    def question(self) -> Field | None:
        """The question in focus; None on a button."""
        return self.fields[self.at] if self.at < len(self.fields) else None

    @property
    def edit(self) -> LineEdit:
        """The answer under way; empty on a button."""
        return LineEdit(self.value(self.question.name), self._cursor) if self.question else LineEdit()

    def value(self, name: str) -> str:
        """What was typed; empty: nothing, so the default holds."""
        return self.answers.get(name, "")

    def is_seen(self, asked: Field) -> bool:
        """Whether what was looked at last is the present answer to this question."""
        return self.seen.focus == asked.name and self.seen.answers.get(asked.name, "") == self.value(asked.name)

    def show_all(self) -> None:
        """Ask everything, or only what matters first; the question or button in focus keeps it, where it is still there."""
        asked, button = self.question, self.at - len(self.fields)
        self.with_all = not self.with_all
        self.fields = fields(self._is_clone, self.with_all, self._edits)
        if asked is None:
            self.go(len(self.fields) + button)
        else:
            self.go(next((at for at, field in enumerate(self.fields) if field.name == asked.name), 0))

    def take(self, seen: Evaluation) -> None:
        """What the answers come to."""
        self.seen = seen
        asked = self.question
        if asked is not None and self.is_seen(asked):
            self.picker.take(seen.candidates, self.value(asked.name).strip(), asked.name not in seen.errors)

    # Typing and walking

    def insert(self, text: str) -> None:
        self._set(self.edit.insert(text, MOST))

    def _set(self, edit: LineEdit) -> None:
        if self.question is not None:
            self.answers[self.question.name], self._cursor = edit.text, edit.cursor
            self.picker.typed()
            self._changed()

    def go(self, at: int) -> None:
        """To a question or button, by its place."""
        self.at = max(0, min(at, len(self.fields) + len(BUTTONS) - 1))
        self.picker.leave()
        self.jump(1)
        self._changed()

    def go_to(self, name: str) -> None:
        """To the question of that name, where it is asked."""
        self.go(next((at for at, asked in enumerate(self.fields) if asked.name == name), self.at))

    def move(self, by: int) -> None:
        """So many questions on, over a list that is open."""
        self.go(self.at + by)

    def walk(self, by: int) -> None:
        """In the list of candidates where one is open, else to another question."""
        if not (self.picker.is_open and self.picker.walk(by)):
            self.go(self.at + by)

    def complete(self) -> None:
        """Take the chosen candidate; else go on as far as all candidates agree; else open the list; else the next question."""
        asked, picker = self.question, self.picker
        answer = self.value(asked.name) if asked is not None else ""
        if asked is None or asked.kind not in {"path", "model"} or (self.is_seen(asked) and not self.seen.candidates):
            self.go(self.at + 1)
        elif not self.is_seen(asked):
            picker.expect()
        elif picker.chosen is not None:
            self._pick(picker.chosen.text)
        elif picker.is_open and len(common := picker.common(answer)) > len(answer):
            self._pick(common)
        elif not ((picker.is_open and picker.walk(1)) or picker.open(self.seen.candidates, answer.strip())):
            self.go(self.at + 1)

    def _pick(self, answer: str) -> None:
        self._set(LineEdit.of(answer[:MOST]))

    def shut_list(self) -> bool:
        """Whether there was a list to shut; without one the key is the screen's."""
        was_open = self.picker.is_open
        if was_open:
            self.picker.shut()
        return was_open

    def side(self, way: int) -> None:
        """Another choice; or the cursor moves; at the end of an answer to the right: the first candidate, or their list."""
        asked = self.question
        if asked is None:
            return
        answer = self.value(asked.name)
        if asked.choices:
            shown = answer or self.seen.values.get(asked.name, "")
            at = asked.choices.index(shown) if shown in asked.choices else 0
            self._set(LineEdit(asked.choices[(at + way) % len(asked.choices)]))
        elif way > 0 and self.picker.is_open and self.edit.is_at_end:
            self._pick((self.picker.chosen or self.picker.shown[0]).text)
        elif way > 0 and self.edit.is_at_end and self.is_seen(asked) and self.seen.candidates:
            self.picker.open(self.seen.candidates, answer.strip())
        else:
            self._cursor = self.edit.move(way).cursor

    def jump(self, end: int) -> None:
        """The cursor to the beginning (0) or the end (1) of the answer."""
        self._cursor = len(self.edit.text) if end else 0

    def rub(self) -> None:
        """Take the character before the cursor away."""
        if self._cursor:
            self._set(self.edit.rub())

    def rub_word(self) -> None:
        """Take the word before the cursor away, or a path's last part."""
        self._set(self.edit.rub_word(" /"))

    def clear(self) -> None:
        self._set(LineEdit())

    def press(self) -> None:
        """The button in focus; on a question the chosen candidate, else the next question."""
        if self.question is None:
            self._pressed(BUTTONS[self.at - len(self.fields)][0])
        elif self.picker.chosen is not None:
            self._pick(self.picker.chosen.text)
        else:
            self.go(self.at + 1)
