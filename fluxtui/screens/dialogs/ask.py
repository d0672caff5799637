"""A question before something that cannot be undone: No is in focus, and Esc is No."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.screen import ModalScreen

from fluxtui.screens.drawing.ink import Line, Span, wrapped
from fluxtui.screens.drawing.pane import Pane


class Question(Pane):
    """The box with the question and its two answers."""

    DEFAULT_CSS: ClassVar[str] = "Question { width: 64; max-width: 100%; height: 9; }"
    FRAME = "box"
    can_focus = True

    def __init__(self, title: str, text: str, yes: str, no: str = "No") -> None:
        super().__init__()
        self._title, self._text, self._answers = title, text, (no, yes)
        self.chosen = 0

    def heading(self) -> Line:
        return Line(Span(self._title, "!warn"))

    def wanted_height(self, width: int) -> int:
        return len(wrapped(self._text, max(1, width - 4))) + 4

    def choose(self, answer: int) -> None:
        self.chosen = answer
        self.repaint()

    def body(self, width: int, height: int) -> list[Line]:
        lines = [Line(Span(piece)) for piece in wrapped(self._text, width)[: max(1, height - 2)]]
        answers = Line()
        for at, answer in enumerate(self._answers):
            is_chosen = at == self.chosen
            mark = self.glyphs.pointer if is_chosen else " "
            answers.add(f"{mark} {answer} ", "!text@cursor" if is_chosen else "dim").add("   ")
        return [*lines, Line(), answers]

    def on_click(self, event: Click) -> None:
        x = event.x - 2
        first = len(self._answers[0]) + 3
        if event.y == self.size.height - 2 and 0 <= x < first + 4 + len(self._answers[1]) + 2:
            self.choose(0 if x < first + 1 else 1)
            self.screen.dismiss(self.chosen == 1)


class Ask(ModalScreen[bool]):
    """Answers True for yes. `drop_if_moot` asks `is_moot` whether there is still something to answer, and else says no."""

    HINTS = (("y", "yes"), ("n or esc", "no"), ("left, right", "choose"), ("enter", "takes it"))

    DEFAULT_CSS: ClassVar[str] = "Ask { align: center middle; background: transparent; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n,q", "answer(False)", "no", show=False),
        Binding("y", "answer(True)", "yes", show=False),
        Binding("left,right,h,l,j,k,up,down,tab,shift+tab", "other", "the other answer", show=False),
        Binding("enter,space", "take", "take it", show=False),
    ]

    def __init__(self, title: str, text: str, yes: str, is_moot: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self._question = Question(title, text, yes)
        self._is_moot = is_moot

    def compose(self) -> ComposeResult:
        yield self._question

    def on_mount(self) -> None:
        self._question.styles.height = self._question.wanted_height(min(64, self.app.size.width))
        self._question.focus()

    def drop_if_moot(self) -> None:
        if self.is_current and self._is_moot():
            self.dismiss(False)

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)

    def action_other(self) -> None:
        self._question.choose(1 - self._question.chosen)

    def action_take(self) -> None:
        self.dismiss(self._question.chosen == 1)
