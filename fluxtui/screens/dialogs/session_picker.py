"""Chooses some of many sessions: type to narrow, Tab marks, Enter takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from fluxtui.screens.dialogs.filter_line import FilterLine
from fluxtui.screens.drawing.ink import Line, Span, fit
from fluxtui.screens.drawing.pane import Pane

WIDTH, HEIGHT = 76, 17
NAME = 30  # cells


class Names(Pane):
    """The sessions that match, those that are marked with a cross."""

    DEFAULT_CSS: ClassVar[str] = f"Names {{ width: {WIDTH}; max-width: 100%; height: {HEIGHT}; max-height: 100%; }}"
    FRAME = "box"

    def __init__(self, title: str, rows: Sequence[tuple[str, str]], marked: Sequence[str], most: int) -> None:
        super().__init__()
        self._title, self._all, self._most = title, rows, most
        self.marked = list(marked)
        self._shown = list(rows)
        self._at = 0

    @property
    def here(self) -> str:
        return self._shown[self._at][0] if self._at < len(self._shown) else ""

    def narrow(self, text: str) -> None:
        wanted = text.lower().split()
        self._shown = [row for row in self._all if all(word in " ".join(row).lower() for word in wanted)]
        self._at = 0
        self.repaint()

    def move(self, by: int) -> None:
        self._at = max(0, min(self._at + by, len(self._shown) - 1))
        self.repaint()

    def mark(self) -> None:
        """Mark the one under the cursor, or let it go; the oldest gives way where there are too many."""
        if self.here in self.marked:
            self.marked.remove(self.here)
        elif self.here:
            self.marked = [*self.marked, self.here][-self._most :]
        self.repaint()

    def heading(self) -> Line:
        return Line(Span(self._title, "!text"))

    def corner(self, width: int) -> Line:
        return Line(Span(f"{len(self.marked)} of at most {self._most}", "dim"))

    def body(self, width: int, height: int) -> list[Line]:
        rows = height - 3
        top = max(0, min(self._at - rows + 1, len(self._shown) - rows))
        lines = [Line()]
        for at in range(top, min(len(self._shown), top + rows)):
            name, known = self._shown[at]
            line = Line(Span("[x] " if name in self.marked else "[ ] ", "!accent"), ground="cursor" if at == self._at else "")
            line.add(fit(name, NAME, self.glyphs.ellipsis)).add("  ")
            lines.append(line.add(fit(known, max(1, width - NAME - 6), self.glyphs.ellipsis), "dim"))
        if not self._shown:
            lines.append(Line(Span("no session matches", "dim")))
        lines += [Line() for _ in range(height - 1 - len(lines))]
        hints = Line()
        for key, does in (("tab", "marks"), ("enter", "takes them"), ("esc or ^g", "leaves it")):
            hints.add(key, "!accent").add(f" {does}   ", "dim")
        return [*lines, hints]


class SessionPicker(ModalScreen[list[str] | None]):
    """Answers the names that are marked, in the order of marking; None where the user gave up.

    Enter with no new mark takes the one under the cursor: for one session one types a few letters and Enter.
    """

    DEFAULT_CSS: ClassVar[str] = "SessionPicker { align: center middle; background: transparent; layers: default above; }"
    HINTS = (("letters", "narrow"), ("up, down", "choose"), ("tab", "marks"), ("enter", "takes them"), ("esc", "leaves"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,ctrl+n", "move(1)", show=False, priority=True),
        Binding("up,ctrl+p", "move(-1)", show=False, priority=True),
        Binding("pagedown", "move(10)", show=False, priority=True),
        Binding("pageup", "move(-10)", show=False, priority=True),
        Binding("tab", "mark", show=False, priority=True),
    ]

    def __init__(self, title: str, rows: Sequence[tuple[str, str]], marked: Sequence[str], most: int) -> None:
        super().__init__()
        self._names = Names(title, rows, marked, most)
        self._line = FilterLine("")
        self._has_marked = False

    def compose(self) -> ComposeResult:
        yield self._names
        yield self._line

    def on_mount(self) -> None:
        self._line.open("", ">")

    def on_resize(self) -> None:
        self._line.lie_in(WIDTH, HEIGHT)

    def action_move(self, by: int) -> None:
        self._names.move(by)

    def action_mark(self) -> None:
        self._has_marked = True
        self._names.mark()

    def on_filter_line_changed(self, message: FilterLine.Changed) -> None:
        self._names.narrow(message.text)

    def on_filter_line_closed(self, message: FilterLine.Closed) -> None:
        if message.keeps and not self._has_marked:
            self._names.mark()
        self.dismiss(self._names.marked if message.keeps else None)
