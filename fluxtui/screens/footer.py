"""The last line of a screen: the keys that matter here, as many as fit, from the table of actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.events import Click

from fluxtui.actions import Action, Chain, of_contexts
from fluxtui.refusals import Situation
from fluxtui.screens.drawing.ink import Line
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.keys.dispatch import Dispatcher, first_key, front_of

Hints = Sequence[tuple[str, str]]  # keys, and what they do


def _hinted(hints: Hints) -> Line:
    line = Line(" ")
    for keys, label in hints:
        line.add(keys, "!accent").add(f" {label}  ", "dim")
    return line


class Footer(Pane):
    """Keys and their labels; those that cannot be used now are faint."""

    DEFAULT_CSS: ClassVar[str] = "Footer { height: 1; dock: bottom; }"
    FRAME = "bare"
    can_focus = False

    def __init__(self, *contexts: str, id: str | None = None) -> None:
        super().__init__(id=id)
        self._contexts = contexts
        self._places: list[tuple[int, int, str]] = []  # first column, one past the last, action

    def serve(self, *contexts: str) -> None:
        """Show the keys of other contexts from now on."""
        if contexts != self._contexts:
            self._contexts = contexts
            self.repaint()

    def body(self, width: int, height: int) -> list[Line]:
        self._places = []
        if hints := self._hints():
            return [_hinted(hints)]
        situation: Situation = front_of(self.app).situation()
        is_ascii = self.glyphs.tier is Tier.ASCII
        line = Line(" ")
        shown: list[Action] = []  # those of the first context first
        for context in self._contexts:
            own = [action for action in of_contexts([context]) if action.footer and action not in shown]
            shown += sorted(own, key=lambda action: action.footer)
        chains: Sequence[Chain] = getattr(self.screen, "chains", ())
        labels: Mapping[str, str] = getattr(self.screen, "labels", {})  # by action, where the table's does not fit here
        pinned = [action for action in shown if action.name in {"help", "quit", "back"}]
        room = width - sum(len(first_key(self.app, action.name, is_ascii, chains)) + len(action.label) + 3 for action in pinned)
        for action in shown:
            key = first_key(self.app, action.name, is_ascii, chains)
            label = labels.get(action.name, action.label)
            need = len(key) + len(label) + 3
            if action not in pinned and line.width + need > room:
                continue
            if action in pinned:
                room += need
            start = line.width
            can = not action.refusal(situation)
            line.add(key, "!accent" if can else "faint").add(" ").add(label, "dim" if can else "faint")
            self._places.append((start, line.width, action.name))
            line.add("  ")
        return [line]

    def _hints(self) -> Hints:
        """The keys of what is laid over the screen, or of the line that one types in: the screen's own do nothing then."""
        above = self.app.screen
        found: Hints = getattr(self.screen.focused if above is self.screen else above, "HINTS", ())
        return found

    def on_click(self, event: Click) -> None:
        for start, end, name in self._places:
            actor = getattr(self.screen, "actor", None)
            if start <= event.x < end and isinstance(actor, Dispatcher):
                actor.action_do(name)
