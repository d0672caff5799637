"""What every key does, from the table of actions: first what the screen before offers, then all else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.geometry import Region, Size
from textual.widget import Widget

from fluxtui.actions import TABLE, Action, shown_key
from fluxtui.screens.doing import bindings_for, front_of
from fluxtui.screens.ink import Line, Span, wrapped
from fluxtui.screens.notices import NoticeBoard
from fluxtui.screens.reader import Reader
from fluxtui.screens.sheet import Sheet
from fluxtui.screens.terminal_kind import Tier

KEYS = 14  # cells
LABEL = 18

INTRODUCTION = (
    "Training goes on without this window: close it, lose the connection, come back and see the truth. "
    "Green is only what is proven: the file was checked by a process that did not train it. "
    "Every key here has a command too, shown at its right."
)


class HelpText(Reader):
    """The table of actions, as text."""

    FRAME = "rule"

    def __init__(self, contexts: Sequence[str]) -> None:
        super().__init__(id="help-text")
        self._contexts = frozenset(contexts)

    def heading(self) -> Line:
        return Line(Span("help", "!text"))

    def corner(self, width: int) -> Line:
        return Line(Span("q", "!accent"), Span(" goes back", "dim"))

    def text(self, width: int) -> list[Line]:
        lines = [Line(), *(Line(Span(piece, "dim")) for piece in wrapped(INTRODUCTION, min(width, 100)))]
        here = [action for action in TABLE if action.contexts & (self._contexts | {"list", "reader"})]
        rest = [action for action in TABLE if action not in here]
        lines += self._groups(here, width)
        lines += [Line(), Line(Span("On other screens", "!text")), *self._groups(rest, width)]
        return lines

    def _groups(self, actions: Sequence[Action], width: int) -> list[Line]:
        lines: list[Line] = []
        for group in dict.fromkeys(action.group for action in actions):
            lines += [Line(), Line(Span(group, "!info"))]
            seen: set[str] = set()
            for action in actions:
                if action.group == group and action.help not in seen:
                    seen.add(action.help)
                    lines += self._action(action, width)
        return lines

    def _action(self, action: Action, width: int) -> list[Line]:
        is_ascii = self.glyphs.tier is Tier.ASCII
        keys = front_of(self.app).keys.get(action.name, action.keys).split(",")
        shown = " ".join(shown_key(key, is_ascii) for key in keys[:3])
        verb = f"fluxtui {action.verb}" if action.verb else ""
        room = width - KEYS - LABEL - 2
        has_verb_column = room > 60 + len(verb)
        pieces = wrapped(action.help, max(20, min(room - (len(verb) + 3 if has_verb_column else 0), 90)))
        lines = []
        for at, piece in enumerate(pieces):
            line = Line(Span(shown.ljust(KEYS) if not at else " " * KEYS, "!accent"))
            line.add((action.label if not at else "").ljust(LABEL), "text").add(piece, "dim")
            if not at and verb and has_verb_column:
                line.to(width - len(verb)).add(verb, "faint")
            lines.append(line)
        return lines


class HelpScreen(Sheet):
    """Full screen; q, Esc or b goes back."""

    BINDINGS = bindings_for("help")
    FOOTER = ("help",)

    def __init__(self, board: NoticeBoard, contexts: Sequence[str]) -> None:
        super().__init__(board)
        self._text = HelpText(contexts)

    def panes(self) -> list[Widget]:
        return [self._text]

    def places(self, size: Size) -> Mapping[Widget, Region]:
        return {self._text: Region(0, 0, size.width, size.height)}

    def on_mount(self) -> None:
        self._text.focus()

    def do_back(self) -> None:
        self.dismiss()
