"""The pictures of a data set with their captions: walk through, edit in place, put the trigger in, undo."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType

from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.datasets.folder import Pair
from fluxtui.persist.datasets.parts import pairs_of, parts_of
from fluxtui.persist.errors import FluxTUIError, UsageError
from fluxtui.persist.files.text import clean
from fluxtui.persist.sessions.overview import Overview
from fluxtui.screens.drawing.ink import Line, Span, fit, shorten, wrapped
from fluxtui.screens.keys.dispatch import bindings_for, front_of
from fluxtui.screens.keys.movement import MovementKeys
from fluxtui.screens.pages.caption_files import MOST, CaptionFiles
from fluxtui.screens.pages.page import Page
from fluxtui.screens.pages.picture import Drawings
from fluxtui.screens.watching.watch import Detail

if TYPE_CHECKING:
    from fluxtui.persist.settings.spec import DatasetSpec

LIST = 46  # cells of the list of names


class CaptionPage(Page, MovementKeys):
    """Names at the left, the chosen picture and its caption at the right."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_for("captions"), *bindings_for("list")]
    context = "captions"

    def __init__(self, session: Overview) -> None:
        super().__init__()
        self._data: DatasetSpec | None = None
        self._pairs: Sequence[Pair] = ()
        self._own: dict[Pair, DatasetSpec] = {}  # what holds in the folder of each
        self._texts: dict[Path, str] = {}  # image -> caption, as shown
        self._trouble = ""
        self._at = 0
        self._files = CaptionFiles()
        self._begun = count(1)  # numbers of the readings of the data set
        self._taken = 0  # the newest that is shown
        self._drawings = Drawings(self)

    @property
    def chosen(self) -> Pair | None:
        return self._pairs[self._at] if self._at < len(self._pairs) else None

    def take_detail(self, detail: Detail) -> None:
        data = detail.spec.dataset if detail.spec else None
        if data != self._data:
            self._data = data
            self._pairs, self._own, self._texts = (), {}, {}
            if self.display:
                self.shown()

    def shown(self) -> None:
        if self._data is not None:
            front_of(self.app).run_quietly(self._read)

    def copied(self) -> tuple[str, str]:
        chosen = self.chosen
        return (self._texts.get(chosen.image, ""), "the caption") if chosen else ("", "")

    def _read(self) -> None:
        """Runs in a thread: the pairs and their captions."""
        data = self._data
        if data is None:
            return
        number = next(self._begun)
        try:
            own = {pair: part for part in parts_of(data) for pair in pairs_of(part).items}
            texts = {pair.image: _shown(pair.caption) for pair in own}
            trouble = ""
        except FluxTUIError as error:
            own, texts, trouble = {}, {}, str(error)
        self.app.call_from_thread(self._took, number, own, texts, trouble)

    def _took(self, number: int, own: dict[Pair, DatasetSpec], texts: dict[Path, str], trouble: str) -> None:
        if number < self._taken:  # one that began later was faster, and has seen what this one has not
            return
        self._taken = number
        pairs = tuple(own)
        self._own, self._pairs, self._texts, self._trouble = own, pairs, texts, trouble
        self._at = min(self._at, max(0, len(pairs) - 1))
        self.repaint()

    # Drawing

    def body(self, width: int, height: int) -> list[Line]:
        if self._trouble or not self._pairs:
            said = self._trouble or (
                "reading the data set" if self._data else "The settings cannot be read, so no data set is known."
            )
            role = "warn" if self._trouble else "dim"
            return [Line(), *(Line("  ", Span(piece, role)) for piece in wrapped(said, width - 4))]
        picture = 2 * (height - 4) + 4  # cells that a square one can use, and a gap
        list_width = max(min(LIST, width // 2), min(width - picture, 2 * LIST))
        left = self._list(list_width, height)
        right = self._picture(width - list_width - 3, height)
        rows = []
        for y in range(height):
            line = Line(ground="").extend(left[y]) if y < len(left) else Line()
            line.to(list_width + 2)
            rows.append(line.extend(right[y]) if y < len(right) else line)
        return rows

    def _list(self, width: int, height: int) -> list[Line]:
        top = max(0, min(self._at - height // 2, len(self._pairs) - height))
        lines = []
        for at in range(top, min(len(self._pairs), top + height)):
            pair = self._pairs[at]
            is_chosen = at == self._at
            text = self._texts.get(pair.image, "")
            name_width = max(8, min(20, width // 3))
            role = "warn" if not text else "dim"
            ground = "@cursor" if is_chosen else ""
            line = Line(Span(self.glyphs.pointer if is_chosen else " ", f"!focus{ground}"))
            line.add(fit(clean(pair.image.name, 100), name_width, self.glyphs.ellipsis), f"text{ground}").add(
                "  ", f"text{ground}"
            )
            line.add(fit(text or "no caption", max(1, width - name_width - 3), self.glyphs.ellipsis), f"{role}{ground}")
            lines.append(line)
        return lines

    def _picture(self, width: int, height: int) -> list[Line]:
        chosen = self.chosen
        if chosen is None or width < 8:
            return []
        text = wrapped(self._texts.get(chosen.image, "") or "no caption", width)[: max(2, height // 3)]
        drawing = self._drawings.get(chosen.image, width, height - len(text) - 2)
        if drawing is None:
            lines = [Line(Span("drawing", "faint"))]
        elif drawing.trouble:
            lines = [Line(Span(shorten(drawing.trouble, width), "warn"))]
        else:
            lines = [Line().extend(line) for line in drawing.lines]
        return [*lines, Line(), *(Line(Span(piece)) for piece in text)]

    # Moving

    def here(self) -> int:
        return self._at

    def last(self) -> int:
        return len(self._pairs) - 1

    def page_rows(self) -> int:
        return self.inner[1]

    def walk_to(self, place: int) -> None:
        self._at = max(0, min(place, self.last()))
        self.repaint()

    # Editing

    def _file(self) -> Path | None:
        """The caption file of the chosen picture, there or not; None, with a sentence, where it is not to be edited."""
        chosen = self.chosen
        if chosen is None:
            front_of(self.app).say("there is no picture to caption", "warn")
            return None
        if self._own[chosen].path == dataset_folder.DEMO:
            front_of(self.app).say("the demo's captions are part of FluxTUI; copy its folder to change them", "warn")
            return None
        return self._caption_of(chosen)

    def _caption_of(self, pair: Pair) -> Path:
        return pair.caption or pair.image.with_suffix(self._own[pair].caption_extension)

    def do_caption_edit(self) -> None:
        path = self._file()
        if path is None:
            return
        try:
            text = self._files.text(path)
        except UsageError as error:
            front_of(self.app).say(str(error), "warn")
            return
        self.run_worker(self._open_editor(path, text), exclusive=True)

    async def _open_editor(self, path: Path, text: str) -> None:
        from fluxtui.screens.pages.caption_editor import CaptionEditor

        answer = await self.app.push_screen_wait(CaptionEditor(path.name, text))
        if answer is not None and answer != text:
            self._save(path, answer)

    def do_caption_trigger(self) -> None:
        path, chosen = self._file(), self.chosen
        if path is None or chosen is None:
            return
        data = self._own[chosen]
        if not data.trigger:
            front_of(self.app).say("there is no trigger word for this picture", "warn")
            return
        try:
            text = self._files.text(path)
        except UsageError as error:
            front_of(self.app).say(str(error), "warn")
            return
        if data.trigger in text:
            front_of(self.app).say(f"the caption has {data.trigger} already", "info")
            return
        self._save(path, f"{data.trigger}, {text}" if text.strip() else data.trigger)

    def _save(self, path: Path, text: str) -> None:
        self._files.change(path, text)
        front_of(self.app).run_quietly(self._write)

    def do_caption_undo(self) -> None:
        path = self._files.undo()
        if path is None:
            front_of(self.app).say("nothing has been changed here", "info")
            return
        front_of(self.app).run_quietly(self._write)
        self.walk_to(next((at for at, pair in enumerate(self._pairs) if self._caption_of(pair) == path), self._at))

    def _write(self) -> None:
        """Runs in a thread."""
        try:
            self._files.write_next()
        finally:
            self._read()

    def do_caption_editor(self) -> None:
        """$EDITOR on the caption, with the terminal to itself."""
        path = self._file()
        if path is None:
            return
        front_of(self.app).opened_in_editor(path)
        self.shown()


def _shown(path: Path | None) -> str:
    """The caption made inert; empty where there is none."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            return clean(file.read(MOST).replace(b"\n", b" "), 4000).strip()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
