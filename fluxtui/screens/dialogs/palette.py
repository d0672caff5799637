"""Every action by name: type a few letters, Enter does it. From the table of actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from fluxtui.actions import Action, Chain, of_contexts
from fluxtui.refusals import Situation
from fluxtui.screens.dialogs.filter_line import FilterLine
from fluxtui.screens.drawing.ink import Line, Span, fit, wrapped
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.keys.dispatch import first_key, front_of

WIDTH = 76
ROWS = 13
TOLD = 3  # rows below them: a rule, and the sentence of the chosen one
HEIGHT = ROWS + TOLD + 3  # with the frame and the line to type in


class Choices(Pane):
    """The actions that match, best first."""

    DEFAULT_CSS: ClassVar[str] = f"Choices {{ width: {WIDTH}; max-width: 100%; height: {HEIGHT}; max-height: 100%; }}"
    FRAME = "box"

    def __init__(self, actions: Sequence[Action], chains: Sequence[Chain]) -> None:
        super().__init__()
        self._all, self._chains = actions, chains
        self._shown = list(actions)
        self._at = 0

    @property
    def chosen(self) -> Action | None:
        return self._shown[self._at] if self._at < len(self._shown) else None

    def narrow(self, text: str) -> None:
        scored = [(score, at, action) for at, action in enumerate(self._all) if (score := matches(text, action)) is not None]
        self._shown = [action for _, _, action in sorted(scored, key=lambda item: item[:2])]
        self._at = 0
        self.repaint()

    def move(self, by: int) -> None:
        self._at = max(0, min(self._at + by, len(self._shown) - 1))
        self.repaint()

    def heading(self) -> Line:
        return Line(Span("commands", "!text"))

    def body(self, width: int, height: int) -> list[Line]:
        situation = front_of(self.app).situation()
        rows = height - 1 - TOLD
        top = max(0, min(self._at - rows + 1, len(self._shown) - rows))
        lines = [Line()]
        for at in range(top, min(len(self._shown), top + rows)):
            action = self._shown[at]
            why = action.refusal(situation)
            key = first_key(self.app, action.name, self.glyphs.tier is Tier.ASCII, self._chains)
            line = Line(ground="cursor" if at == self._at else "")
            line.add(fit(key, 7), "!accent" if not why else "faint").add(fit(action.label, 19), "text" if not why else "faint")
            line.add(fit(why or action.help, max(1, width - 26), self.glyphs.ellipsis), "dim")
            lines.append(line)
        return [*lines, *self._told(situation, width, rows)] if self._shown else [Line(), Line(Span("no command matches", "dim"))]

    def _told(self, situation: Situation, width: int, rows: int) -> list[Line]:
        """What the chosen one does, or why it cannot now, to the end of the sentence."""
        chosen = self.chosen
        if chosen is None:
            return []
        why = chosen.refusal(situation)
        pieces = wrapped(why or chosen.help, width)
        blank = [Line() for _ in range(max(0, rows - len(self._shown)))]
        rule = Line(Span(self.glyphs.horizontal * width, "faint"))
        return [*blank, rule, *(Line(Span(piece, "warn" if why else "text")) for piece in pieces[: TOLD - 1])]


class Palette(ModalScreen[str]):
    """Answers the name of an action, or ""."""

    DEFAULT_CSS: ClassVar[str] = "Palette { align: center middle; background: transparent; layers: default above; }"
    HINTS = (("letters", "narrow"), ("up, down", "choose"), ("enter", "does it"), ("esc", "leaves"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,ctrl+n", "move(1)", show=False, priority=True),
        Binding("up,ctrl+p", "move(-1)", show=False, priority=True),
        Binding("pagedown", "move(10)", show=False, priority=True),
        Binding("pageup", "move(-10)", show=False, priority=True),
    ]

    def __init__(self, contexts: Sequence[str], chains: Sequence[Chain]) -> None:
        super().__init__()
        self._choices = Choices([action for action in of_contexts(contexts) if action.name != "palette"], chains)
        self._line = FilterLine("")

    def compose(self) -> ComposeResult:
        yield self._choices
        yield self._line

    def on_mount(self) -> None:
        self._line.open("", ">")

    def on_resize(self) -> None:
        self._line.lie_in(WIDTH, HEIGHT)

    def action_move(self, by: int) -> None:
        self._choices.move(by)

    def on_filter_line_changed(self, message: FilterLine.Changed) -> None:
        self._choices.narrow(message.text)

    def on_filter_line_closed(self, message: FilterLine.Closed) -> None:
        chosen = self._choices.chosen
        self.dismiss(chosen.name if message.keeps and chosen else "")


def matches(text: str, action: Action) -> int | None:
    """How well it matches, 0 best; None where the letters do not occur in order."""
    wanted = text.lower().strip()
    if not wanted:
        return 0
    label = action.label.lower()
    if label.startswith(wanted):
        return 0
    if wanted in label:
        return 1
    if wanted in action.help.lower():
        return 2
    letters = iter(label)
    return 3 if all(letter in letters for letter in wanted) else None
