"""One line being typed, with its cursor: what each editing key makes of it, and the part of it that is in view. No widget."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fluxtui.persist.files.text import clean
from fluxtui.screens.drawing.ink import Line, cells

_BREAKS = re.compile(r"[\r\n]+")


def pasted(text: str, most: int) -> str:
    """What a paste adds to one line, at most `most` characters. Terminals send a line's end as they like, most as CR."""
    return clean(_BREAKS.sub(" ", text[: 2 * most]).strip(), most)


@dataclass(frozen=True, slots=True)
class LineEdit:
    """The text, and how many characters of it are before the cursor. Every change is another one."""

    text: str = ""
    cursor: int = 0

    @classmethod
    def of(cls, text: str) -> LineEdit:
        """The cursor behind the text."""
        return cls(text, len(text))

    @property
    def is_at_end(self) -> bool:
        return self.cursor >= len(self.text)

    def insert(self, text: str, most: int) -> LineEdit:
        """Typed or pasted at the cursor; beyond `most` characters nothing is taken."""
        text = text[: max(0, most - len(self.text))]
        return LineEdit(self.text[: self.cursor] + text + self.text[self.cursor :], self.cursor + len(text))

    def rub(self) -> LineEdit:
        """Without the character before the cursor."""
        return self._without(self.cursor - 1) if self.cursor else self

    def rub_word(self, ends: str = " ") -> LineEdit:
        """Without the word before the cursor. A word ends at each of the characters `ends`."""
        head = self.text[: self.cursor].rstrip(ends)
        return self._without(max(head.rfind(end) for end in ends) + 1)

    def move(self, by: int) -> LineEdit:
        """The cursor so many characters to the right, as far as there are any."""
        return LineEdit(self.text, max(0, min(self.cursor + by, len(self.text))))

    def _without(self, start: int) -> LineEdit:
        return LineEdit(self.text[:start] + self.text[self.cursor :], start)

    def drawn(self, room: int, ghost: str = "", role: str = "text") -> Line:
        """At most `room` cells (2 or more) with the cursor among them; behind the text, faintly, how it may go on."""
        under = "" if self.is_at_end else self.text[self.cursor]
        rest = ghost if self.is_at_end else self.text[self.cursor + 1 :]
        mark = under or rest[:1] or " "
        left = room - cells(mark)
        before = end_of(self.text[: self.cursor], left)
        after = _head(rest if under else rest[1:], left - cells(before))
        return Line().add(before, role).add(mark, "~text").add(after, "text" if under else "faint")


def end_of(text: str, room: int) -> str:
    """The end of a text that takes at most so many cells."""
    text = text[-room:] if room > 0 else ""  # a character takes a cell at least, or belongs to one that does
    while cells(text) > room:
        text = text[1:]
    return text


def _head(text: str, room: int) -> str:
    text = text[: max(0, room)]
    while cells(text) > room:
        text = text[:-1]
    return text
