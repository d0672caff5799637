"""Asks how a checkpoint is written out: for which program, which weights, which numbers, and where to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Key, Paste
from textual.screen import ModalScreen

from fluxtui.persist.files.text import clean
from fluxtui.persist.files.tilde import expanded
from fluxtui.screens.drawing.ink import Line, Span, cells, shorten
from fluxtui.screens.drawing.line_edit import LineEdit, end_of, pasted
from fluxtui.screens.drawing.pane import Pane

READERS = {"diffusers": "for diffusers, ComfyUI", "kohya": "for Forge, sd-scripts", "comfyui": "for ComfyUI alone"}
DTYPES = ("bf16", "fp16", "fp32")
WEIGHTS = ("as trained", "averaged (EMA)")
LABEL = 10
MOST = 1000  # characters of a path


@dataclass(frozen=True, slots=True)
class Export:
    """The answer, as `fluxtui export` takes it."""

    checkpoint: str
    form: str
    is_averaged: bool
    dtype: str
    path: str


_HINTS = (("up, down", "question"), ("left, right", "choose"), ("enter", "writes it"), ("esc or ^g", "leaves it"))


def _keys(width: int) -> list[Line]:
    """What the keys do here, over as many lines as it takes."""
    lines = [Line()]
    for key, told in _HINTS:
        if lines[-1].width + len(key) + len(told) + 2 > width:
            lines.append(Line())
        lines[-1].add(" ").add(key, "!accent").add(f" {told} ", "dim")
    return lines


class _Box(Pane):
    """Four questions: three are chosen from, the last is typed."""

    DEFAULT_CSS: ClassVar[str] = "_Box { width: 76; max-width: 100%; height: 10; }"
    FRAME = "box"
    can_focus = True

    def __init__(self, name: str, checkpoint: str, formats: tuple[str, ...], has_average: bool) -> None:
        super().__init__()
        self._called, self._checkpoint = name, checkpoint
        self._choices = {"format": formats, "weights": WEIGHTS if has_average else WEIGHTS[:1], "numbers": DTYPES}
        self._chosen = dict.fromkeys(self._choices, 0)
        self._at = 0
        self._typed: LineEdit | None = None  # None: nobody has typed a path yet
        self._refused = ""  # why the answer was not taken

    @property
    def path(self) -> str:
        if self._typed is not None:
            return self._typed.text
        average = "-ema" if self._chosen["weights"] else ""
        form = f"-{self._form}" if self._chosen["format"] else ""
        return str(expanded("~") / f"{self._called}-{self._checkpoint}{average}{form}.safetensors")

    @property
    def _form(self) -> str:
        return self._choices["format"][self._chosen["format"]]

    def refuse(self, why: str) -> None:
        """Say why the answer was not taken; what was typed stays."""
        self._refused, self._at = why, len(self._choices)
        self.repaint()

    @property
    def answer(self) -> Export:
        chosen = self._chosen
        path = self.path.strip()
        return Export(self._checkpoint, self._form, bool(chosen["weights"]), DTYPES[chosen["numbers"]], path)

    def heading(self) -> Line:
        return Line(Span(f"export {self._checkpoint}", "!text"))

    def body(self, width: int, height: int) -> list[Line]:
        lines = [Line()]
        for at, (name, choices) in enumerate(self._choices.items()):
            line = self._label(name, at)
            for choice, text in enumerate(choices):
                is_chosen = choice == self._chosen[name]
                line.add(f"{self.glyphs.bullet if is_chosen else ' '} {text}  ", "!text" if is_chosen else "dim")
            if name == "format":
                line.add(f" {READERS[self._form]}", "dim")
            lines.append(line)
        line = self._label("file", len(self._choices))
        lines.append(line.extend(self._path_line(max(8, width - LABEL - 2))))
        return [*lines, Line(Span(shorten(f" {self._refused}", width), "warn")), *_keys(width)]

    def _path_line(self, room: int) -> Line:
        if self._is_typing:
            return self._edit.drawn(room)
        return Line(Span(self.path if cells(self.path) <= room else self.glyphs.ellipsis + end_of(self.path, room - 1)))

    @property
    def _is_typing(self) -> bool:
        return self._at == len(self._choices)

    @property
    def _edit(self) -> LineEdit:
        return self._typed if self._typed is not None else LineEdit.of(self.path)

    def _label(self, name: str, at: int) -> Line:
        is_here = at == self._at
        line = Line(Span(self.glyphs.pointer if is_here else " ", "!focus"), ground="cursor" if is_here else "")
        return line.add(f" {name}".ljust(LABEL), "text" if is_here else "dim")

    # Keys

    def walk(self, by: int) -> None:
        self._at = (self._at + by) % (len(self._choices) + 1)
        self.repaint()

    def choose(self, by: int) -> None:
        """The next choice; in the path, the next character."""
        if self._is_typing:
            self.edit(lambda edit: edit.move(by))
        else:
            name = list(self._choices)[self._at]
            self._chosen[name] = (self._chosen[name] + by) % len(self._choices[name])
            self.repaint()

    def edit(self, action: Callable[[LineEdit], LineEdit]) -> None:
        """Change the path, where that is the question in focus."""
        if self._is_typing:
            self._typed, self._refused = action(self._edit), ""
            self.repaint()

    def on_key(self, event: Key) -> None:
        """All but enter and esc here, in order: a binding would be carried out only after the letters typed behind it."""
        action = _KEYS.get(event.key)
        if action is not None:
            event.stop()
            action(self)
        elif event.character is not None and event.is_printable:
            event.stop()
            self._insert(event.character)

    def on_paste(self, event: Paste) -> None:
        event.stop()
        self._insert(pasted(event.text, MOST))

    def _insert(self, text: str) -> None:
        """Whoever types means the path."""
        self._at = len(self._choices)
        self.edit(lambda edit: edit.insert(text, MOST))


_KEYS: dict[str, Callable[[_Box], None]] = {
    "down": lambda box: box.walk(1),
    "tab": lambda box: box.walk(1),
    "up": lambda box: box.walk(-1),
    "shift+tab": lambda box: box.walk(-1),
    "right": lambda box: box.choose(1),
    "left": lambda box: box.choose(-1),
    "home": lambda box: box.edit(lambda edit: edit.move(-MOST)),
    "ctrl+a": lambda box: box.edit(lambda edit: edit.move(-MOST)),
    "end": lambda box: box.edit(lambda edit: edit.move(MOST)),
    "ctrl+e": lambda box: box.edit(lambda edit: edit.move(MOST)),
    "backspace": lambda box: box.edit(LineEdit.rub),
    "ctrl+h": lambda box: box.edit(LineEdit.rub),
    "ctrl+w": lambda box: box.edit(lambda edit: edit.rub_word(" /")),
    "ctrl+u": lambda box: box.edit(lambda _: LineEdit()),
}


class ExportBox(ModalScreen[Export | None]):
    """Answers what to write, or None."""

    HINTS = _HINTS

    DEFAULT_CSS: ClassVar[str] = "ExportBox { align: center middle; background: transparent; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+g", "drop", show=False),
        Binding("enter", "take", show=False),
    ]

    def __init__(self, name: str, checkpoint: str, formats: tuple[str, ...], has_average: bool) -> None:
        super().__init__()
        self._box = _Box(name, checkpoint, formats, has_average)

    def compose(self) -> ComposeResult:
        yield self._box

    def on_mount(self) -> None:
        self._box.focus()

    def action_drop(self) -> None:
        self.dismiss(None)

    def action_take(self) -> None:
        if self._box.answer.path:
            self.run_worker(partial(self._take, self._box.answer), thread=True)
        else:
            self.dismiss(None)

    def _take(self, answer: Export) -> None:
        """In a thread: the folder may lie on a disk that does not answer."""
        folder = expanded(answer.path).absolute().parent
        if folder.is_dir():
            self.app.call_from_thread(self.dismiss, answer)
        else:
            why = f"there is no folder {clean(str(folder), MOST)}; make it, or name another"
            self.app.call_from_thread(self._box.refuse, why)
