"""Asks for one line of text."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.screen import ModalScreen

from fluxtui.screens.filter_line import FilterLine
from fluxtui.screens.ink import Line, Span, wrapped
from fluxtui.screens.pane import Pane


class _Box(Pane):
    DEFAULT_CSS: ClassVar[str] = "_Box { width: 76; max-width: 100%; height: 7; }"
    FRAME = "box"

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def heading(self) -> Line:
        return Line(Span(self._title, "!text"))

    def body(self, width: int, height: int) -> list[Line]:
        lines = [Line(Span(piece)) for piece in wrapped(self._text, width)[:2]]
        lines += [Line() for _ in range(height - 1 - len(lines))]
        return [
            *lines,
            Line(Span("enter", "!accent"), Span(" does it  ", "dim"), Span("esc or ^g", "!accent"), Span(" does not", "dim")),
        ]


class Prompt(ModalScreen[str]):
    """Answers the text, or "" where the user gave up."""

    DEFAULT_CSS: ClassVar[str] = "Prompt { align: center middle; background: transparent; layers: default above; }"

    def __init__(self, title: str, text: str, value: str) -> None:
        super().__init__()
        self._box = _Box(title, text)
        self._line = FilterLine("to")
        self._value = value

    def compose(self) -> ComposeResult:
        yield self._box
        yield self._line

    def on_mount(self) -> None:
        self._line.styles.width = min(72, self.app.size.width - 4)
        self._line.styles.offset = (0, -1)
        self._line.open(self._value)

    def on_filter_line_closed(self, message: FilterLine.Closed) -> None:
        self.dismiss(message.text.strip() if message.keeps else "")
