"""What every key does, from the table of actions: first what the screen before offers, then all else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.geometry import Region, Size
from textual.widget import Widget

from fluxtui.actions import TABLE, Action, Chain, keys_of, live_keys, shown_key
from fluxtui.screens.base_screen import BaseScreen
from fluxtui.screens.drawing.ink import Line, Span, wrapped
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.keys.dispatch import bindings_for, front_of
from fluxtui.screens.notices import NoticeBoard
from fluxtui.screens.pages.reader import Reader

KEYS = 14  # cells
LABEL = 18
SENTENCE = 90  # cells of a sentence, at most
WIDEST = 132  # cells of a line: a command far from its key is not read

INTRODUCTION = (
    "Training goes on without this window: close it, lose the connection, come back and see the truth. "
    "Green is only what is proven: the file was checked by a process that did not train it. "
    "Where a command does the same as a key, it stands at the right: what to type after `fluxtui`."
)


class HelpText(Reader):
    """The table of actions, as text."""

    FRAME = "rule"

    def __init__(self, chains: Sequence[Chain]) -> None:
        super().__init__(id="help-text")
        self._chains = chains

    def heading(self) -> Line:
        return Line(Span("help", "!text"))

    def corner(self, width: int) -> Line:
        return Line(Span("q", "!accent"), Span(" goes back", "dim"))

    def text(self, width: int) -> list[Line]:
        width = min(width, WIDEST)
        lines = [Line(), *(Line(Span(piece, "dim")) for piece in wrapped(INTRODUCTION, min(width, 100)))]
        keys = front_of(self.app).keys
        live = {action.name: live_keys(action, self._chains, keys) for action in TABLE}
        own = {chain[0] for chain in self._chains} - {"list", "reader"}  # of the page itself: first
        here = [(action, live[action.name]) for action in TABLE if live[action.name]]
        here.sort(key=lambda pair: not pair[0].contexts & own)
        rest = [(action, keys_of(action, keys)) for action in TABLE if not live[action.name]]
        lines += self._groups(here, width)
        lines += [Line(), Line(Span("On other screens", "!text")), *self._groups(rest, width)]
        return lines

    def _groups(self, actions: Sequence[tuple[Action, Sequence[str]]], width: int) -> list[Line]:
        lines: list[Line] = []
        for group in dict.fromkeys(action.group for action, _ in actions):
            lines += [Line(), Line(Span(group, "!info"))]
            seen: set[str] = set()
            for action, keys in actions:
                if action.group == group and action.help not in seen:
                    seen.add(action.help)
                    lines += self._action(action, keys, width)
        return lines

    def _action(self, action: Action, keys: Sequence[str], width: int) -> list[Line]:
        is_ascii = self.glyphs.tier is Tier.ASCII
        shown = " ".join(shown_key(key, is_ascii) for key in keys[:3])
        lines = []
        for at, piece in enumerate(wrapped(action.help, max(20, min(width - KEYS - LABEL - 2, SENTENCE)))):
            line = Line(Span(shown.ljust(KEYS) if not at else " " * KEYS, "!accent"))
            lines.append(line.add((action.label if not at else "").ljust(LABEL), "text").add(piece, "dim"))
        if action.verb:
            if lines[-1].width + len(action.verb) + 3 > width:
                lines.append(Line())
            lines[-1].to(width - len(action.verb) - 1).add(action.verb, "info")
        return lines


class HelpScreen(BaseScreen):
    """Full screen; q, Esc or b goes back."""

    BINDINGS = bindings_for("help")
    FOOTER = ("help",)

    def __init__(self, board: NoticeBoard, chains: Sequence[Chain]) -> None:
        super().__init__(board)
        self._text = HelpText(chains)

    def panes(self) -> list[Widget]:
        return [self._text]

    def places(self, size: Size) -> Mapping[Widget, Region]:
        return {self._text: Region(0, 0, size.width, size.height)}

    def on_mount(self) -> None:
        self._text.focus()

    def do_back(self) -> None:
        self.dismiss()
