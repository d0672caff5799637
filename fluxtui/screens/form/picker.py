"""The list below a question that asks for a folder or a model: opened by what is typed, or by tab; walked, and one taken."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from fluxtui.screens.drawing.glyphs import Glyphs
from fluxtui.screens.drawing.ink import Line, Span, shorten
from fluxtui.screens.form.candidates import Candidate

ROWS = 7  # candidates shown at once


class Picker:
    """Which candidates are shown, and which of them is chosen."""

    def __init__(self) -> None:
        self.shown: Sequence[Candidate] = ()
        self._at = -1  # the chosen one; -1: still in the text
        self._is_wanted = False  # opened by a key, although the answer is whole
        self._is_shut = False

    @property
    def is_open(self) -> bool:
        return bool(self.shown)

    @property
    def chosen(self) -> Candidate | None:
        return self.shown[self._at] if 0 <= self._at < len(self.shown) else None

    def leave(self) -> None:
        """Another question is in focus."""
        self.shown, self._at, self._is_wanted, self._is_shut = (), -1, False, False

    def typed(self) -> None:
        """The answer has changed: what was walked to is another thing now."""
        self._at, self._is_wanted, self._is_shut = -1, False, False

    def shut(self) -> None:
        self.shown, self._at, self._is_shut = (), -1, True

    def take(self, candidates: Sequence[Candidate], answer: str, is_whole: bool) -> None:
        """The candidates of the present answer; `is_whole`: it is one that can be left as it is."""
        others = [one for one in candidates if one.text != answer]
        is_due = self._is_wanted or (bool(answer) and not is_whole)
        chosen = self.chosen
        self.shown = others if is_due and not self._is_shut else ()
        self._at = next((at for at, one in enumerate(self.shown) if one == chosen), -1)

    def open(self, candidates: Sequence[Candidate], answer: str) -> bool:
        """By a key; whether there is anything to show."""
        self._is_wanted, self._is_shut = True, False
        self.take(candidates, answer, False)
        self._at = 0 if self.shown else -1
        return self.is_open

    def expect(self) -> None:
        """Open as soon as the answer is looked at."""
        self._is_wanted, self._is_shut = True, False

    def walk(self, by: int) -> bool:
        """Up or down; whether that stayed inside the list or came back to the text."""
        to = self._at + by
        if not self.shown or to < -1 or to >= len(self.shown):
            return False
        self._at = to
        return True

    def common(self, answer: str) -> str:
        """How far all candidates that begin with the answer go on alike."""
        longer = [one.text for one in self.shown if one.text.startswith(answer)]
        alike = len(answer)
        while longer and all(len(one) > alike and one[alike] == longer[0][alike] for one in longer):
            alike += 1
        return longer[0][:alike] if longer else answer

    def lines(self, width: int, indent: int, glyphs: Glyphs) -> list[Line]:
        """The candidates around the chosen one."""
        top = max(0, min(self._at - ROWS // 2, len(self.shown) - ROWS))
        lines = []
        for at in range(top, min(len(self.shown), top + ROWS)):
            one, is_chosen = self.shown[at], at == self._at
            line = Line(" " * indent, ground="cursor" if is_chosen else "")
            line.add(glyphs.pointer if is_chosen else " ", "!focus").add(" ")
            room = max(8, width - indent - 2)
            text = _tail(one.text, room, glyphs.ellipsis)
            line.add(text, "!text" if is_chosen else "info")
            left = room - cell_len(text) - 2
            lines.append(line.add(f"  {shorten(one.note, left, glyphs.ellipsis)}" if one.note and left >= 8 else "", "dim"))
        rest = len(self.shown) - len(lines)
        keys = "tab takes one, esc shuts the list" if self.chosen else "down walks, tab goes on typing, right takes the first"
        more = f"{rest} more; " if rest > 0 else ""
        return [*lines, Line(" " * (indent + 2), Span(shorten(more + keys, max(8, width - indent - 2)), "faint"))]


def _tail(text: str, room: int, ellipsis: str) -> str:
    """The text in so many cells; of a long path the end, which is where paths differ."""
    if cell_len(text) <= room or not text.startswith(("/", "~", ".")):
        return shorten(text, room, ellipsis)
    while text and cell_len(text) > room - len(ellipsis):
        text = text[1:]
    return ellipsis + text
