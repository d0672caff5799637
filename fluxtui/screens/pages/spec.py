"""The settings of a session, with what differs from the defaults or from another session."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.settings import defaults, keys
from fluxtui.persist.settings.recipe import load_spec
from fluxtui.persist.settings.spec import Spec
from fluxtui.screens.drawing.ink import Line, Span, shorten, wrapped
from fluxtui.screens.keys.dispatch import bindings_for, front_of
from fluxtui.screens.pages.reader import Reader
from fluxtui.screens.watching.watch import Detail

NAME = 26  # cells
VALUE = 34
WIDEST = 56  # cells of a value in a wide terminal
_KINDS = {"pico": "pico", "flux1": "FLUX.1"}


class SpecPage(Reader):
    """Every key with its value; what differs stands out, with what it is compared with beside it."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_for("spec"), *bindings_for("reader")]
    context = "spec"

    def __init__(self, session: Overview) -> None:
        super().__init__()
        self._path = session.path
        self._spec: Spec | None = None
        self._problem = ""
        self._only_changes = False
        self._other: tuple[str, Spec] | None = None  # None: the defaults of its kind of model

    def take_detail(self, detail: Detail) -> None:
        self._spec, self._problem = detail.spec, detail.spec_problem
        self.repaint()

    def copied(self) -> tuple[str, str]:
        return str(self._path / "session.toml"), "the path of session.toml"

    def text(self, width: int) -> list[Line]:
        spec = self._spec
        if spec is None:
            said, role = self._problem or "reading the settings", "warn" if self._problem else "dim"
            return [Line(), *(Line(Span(piece, role)) for piece in wrapped(said, width))]
        against = self._other[0] if self._other else f"the defaults of {_KINDS[spec.kind]}"
        only = "; changes only" if self._only_changes else ""
        lines = [Line(Span("compared with ", "dim"), Span(against, "info"), Span(f", at the right{only}", "dim"))]
        for table in ("", *keys.tables()):
            rows = [row for key in keys.all_keys() if key.table == table and (row := self._row(key, spec, width)) is not None]
            if rows:
                lines += [Line(), Line(Span(f"[{table}]" if table else "session", "!text")), *rows]
        return lines if len(lines) > 1 else [*lines, Line(), Line(Span("nothing differs", "dim"))]

    def _row(self, key: keys.Key, spec: Spec, width: int) -> Line | None:
        value = _value(spec, key)
        before = _value(self._other[1], key) if self._other else defaults.of_kind(spec.kind).get(key.dotted, key.default)
        has_before = self._other is not None or not isinstance(before, type(keys.REQUIRED))
        differs = has_before and value != before
        if self._only_changes and not differs:
            return None
        room = max(VALUE, min(width // 3, WIDEST))  # of a value, and of the one beside it
        line = Line(Span(f"  {key.name}".ljust(NAME), "dim"))
        line.add(shorten(keys.show(value), room, self.glyphs.ellipsis).ljust(room), "!accent" if differs else "text")
        if differs:
            label = ("there " if self._other else "default ") if width > NAME + room + 40 else ""
            line.add(f" {label}", "faint").add(self._cut(keys.show(before), line, width), "dim")
        elif width > NAME + VALUE + 20:
            line.add(" ").add(self._cut(key.description, line, width), "faint")
        return line

    def _cut(self, text: str, line: Line, width: int) -> str:
        return shorten(text, max(0, width - line.width), self.glyphs.ellipsis)

    def do_spec_changed(self) -> None:
        self._only_changes = not self._only_changes
        self.top = 0
        self.repaint()

    def do_spec_editor(self) -> None:
        front_of(self.app).edit_in_editor(self._path.name)

    def do_spec_other(self) -> None:
        front_of(self.app).run_quietly(self._next_other)

    def _next_other(self) -> None:
        """Runs in a thread: the next session that can be read; after the last one the defaults."""
        folders = sorted(path for path in self._path.parent.iterdir() if path != self._path and path.is_dir())
        names = [path.name for path in folders]
        start = names.index(self._other[0]) + 1 if self._other and self._other[0] in names else 0
        for path in folders[start:]:
            try:
                found = (path.name, load_spec(path / "session.toml"))
            except FluxTUIError:
                continue
            self.app.call_from_thread(self._compare, found)
            return
        self.app.call_from_thread(self._compare, None)

    def _compare(self, other: tuple[str, Spec] | None) -> None:
        self._other = other
        self.repaint()


def _value(spec: Spec, key: keys.Key) -> object:
    return getattr(getattr(spec, key.table), key.name) if key.table else getattr(spec, key.name)
