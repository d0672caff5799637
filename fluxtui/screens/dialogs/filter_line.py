"""One line to type in, laid over a pane: a filter, a search."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Key, Paste
from textual.message import Message

from fluxtui.screens.drawing.ink import Line, Span
from fluxtui.screens.drawing.line_edit import LineEdit, pasted
from fluxtui.screens.drawing.pane import Pane

MOST = 500  # characters


class FilterLine(Pane):
    """Says `Changed` at each key and `Closed` at Enter (keeps) or Esc (does not). Hidden until opened."""

    DEFAULT_CSS: ClassVar[str] = "FilterLine { height: 1; display: none; layer: above; }"
    FRAME = "bare"
    can_focus = True
    HINTS = (("enter", "keeps it"), ("esc", "drops it"), ("^u", "empties it"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "close(True)", show=False),
        Binding("escape,ctrl+g", "close(False)", show=False),
        Binding("backspace,ctrl+h", "rub", show=False),
        Binding("ctrl+u", "clear", show=False),
        Binding("ctrl+w", "rub_word", show=False),
        Binding("left", "move(-1)", show=False),
        Binding("right", "move(1)", show=False),
        Binding("home,ctrl+a", "move(-1000)", show=False),
        Binding("end,ctrl+e", "move(1000)", show=False),
        Binding("tab,shift+tab,up,down", "close(True)", show=False),
    ]

    class Changed(Message):
        def __init__(self, line: FilterLine, text: str) -> None:
            super().__init__()
            self.line, self.text = line, text

    class Closed(Message):
        def __init__(self, line: FilterLine, text: str, keeps: bool) -> None:
            super().__init__()
            self.line, self.text, self.keeps = line, text, keeps

    def __init__(self, name: str) -> None:
        super().__init__(id=f"{name}-line")
        self.prompt = name
        self.is_open = False
        self.trouble = ""
        self._edit = LineEdit()
        self._is_chosen = False  # all of the text: what is typed replaces it

    @property
    def value(self) -> str:
        return self._edit.text

    def open(self, text: str, prompt: str = "", is_chosen: bool = False) -> None:
        """Show the line with this text in it and take the keys. `is_chosen`: typing replaces the text."""
        self.prompt = prompt or self.prompt
        self._is_chosen = is_chosen and bool(text)
        self._edit, self.is_open, self.trouble = LineEdit.of(text), True, ""
        self.display = True
        self.focus()
        self.repaint()

    def lie_in(self, width: int, height: int) -> None:
        """In the first line within the frame of a centred box of that size, which is smaller where the screen is."""
        columns, rows = self.app.size
        self.styles.width = min(width, columns) - 4
        self.styles.offset = (0, (rows - min(height, rows)) // 2 + 1 - (rows - 1) // 2)

    def say(self, trouble: str) -> None:
        """Why what was typed cannot be used; empty: it can."""
        self.trouble = trouble
        self.repaint()

    def body(self, width: int, height: int) -> list[Line]:
        line = Line(Span(f" {self.prompt} ", "!accent"), ground="panel")
        room = max(4, width - line.width - 2 - (len(self.trouble) + 2 if self.trouble else 0))
        line.extend(self._edit.drawn(room, role="~text" if self._is_chosen else "text"))
        if self.trouble:
            line.to(max(line.width, width - len(self.trouble) - 1)).add(self.trouble, "warn")
        return [line]

    def _set(self, edit: LineEdit) -> None:
        self._is_chosen = False
        self._edit = edit
        self.repaint()
        self.post_message(self.Changed(self, self.value))

    def on_key(self, event: Key) -> None:
        if event.character is not None and event.is_printable:
            event.stop()
            event.prevent_default()
            self._insert(event.character)

    def on_paste(self, event: Paste) -> None:
        event.stop()
        self._insert(pasted(event.text, MOST))

    def _insert(self, text: str) -> None:
        self._set((LineEdit() if self._is_chosen else self._edit).insert(text, MOST))

    def action_rub(self) -> None:
        self._set(LineEdit() if self._is_chosen else self._edit.rub())

    def action_rub_word(self) -> None:
        self._set(self._edit.rub_word())

    def action_clear(self) -> None:
        self._set(LineEdit())

    def action_move(self, by: int) -> None:
        self._is_chosen = False
        self._edit = self._edit.move(by)
        self.repaint()

    def action_close(self, keeps: bool) -> None:
        self.is_open = False
        self.display = False
        self.post_message(self.Closed(self, self.value, keeps))
