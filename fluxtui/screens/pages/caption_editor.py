"""One caption in a box to edit: Enter keeps, Esc and ctrl+g do not."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import TextArea

from fluxtui.screens.drawing.ink import Line, Span
from fluxtui.screens.drawing.pane import Pane


class _Keys(Pane):
    DEFAULT_CSS: ClassVar[str] = "_Keys { height: 1; }"
    FRAME = "bare"

    def body(self, width: int, height: int) -> list[Line]:
        return [Line(Span(" enter", "!accent"), Span(" keeps  ", "dim"), Span("esc or ^g", "!accent"), Span(" does not", "dim"))]


class CaptionEditor(ModalScreen[str | None]):
    """Answers the new text, or None."""

    DEFAULT_CSS: ClassVar[str] = """
    CaptionEditor { align: center middle; background: transparent; }
    CaptionEditor > Vertical { width: 80%; max-width: 100; height: 12; background: $background; }
    CaptionEditor TextArea { height: 1fr; }
    """
    HINTS = (("enter", "keeps it"), ("esc or ^g", "leaves it"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,ctrl+s", "keep", show=False, priority=True),
        Binding("escape,ctrl+g", "drop", show=False, priority=True),
    ]

    def __init__(self, name: str, text: str) -> None:
        super().__init__()
        self._area = TextArea(text, soft_wrap=True)
        self._area.border_title = None
        self._called = name

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self._area
            yield _Keys()

    def on_mount(self) -> None:
        self._area.move_cursor(self._area.document.end)
        self._area.focus()

    def action_keep(self) -> None:
        self.dismiss(self._area.text)

    def action_drop(self) -> None:
        self.dismiss(None)
