"""The checkpoints of a session: resume from one, write one out as a file, delete one."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from textual.binding import BindingType

from fluxtui.persist.sessions.overview import Overview
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.ink import Line, Span, wrapped
from fluxtui.screens.keys.dispatch import bindings_for, front_of
from fluxtui.screens.keys.movement import MovementKeys
from fluxtui.screens.pages.page import Page
from fluxtui.screens.watching.history import History
from fluxtui.screens.watching.watch import Detail

AVERAGE = "ema.safetensors"  # as the trainer calls it
COLUMN = 11  # cells
MEASURED = (("LOSS", 72), ("VALIDATION", 94), ("EPOCH", 104))  # columns, and the width from which there is room for each


@dataclass(frozen=True, slots=True)
class Kept:
    """One checkpoint on disk."""

    name: str
    step: int
    size: int  # bytes
    at: datetime | None
    has_average: bool = False  # the averaged weights lie in it too


class CheckpointPage(Page, MovementKeys):
    """A list, newest first."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_for("checkpoints"), *bindings_for("list")]
    context = "checkpoints"

    def __init__(self, session: Overview) -> None:
        super().__init__()
        self._folder = session.path / "checkpoints"
        self._called = session.name
        self._session: Overview | None = session
        self._names: Sequence[str] = ()
        self._kept: list[Kept] = []
        self._history: History | None = None
        self._at = 0

    @property
    def chosen(self) -> Kept | None:
        return self._kept[self._at] if self._at < len(self._kept) else None

    def take_session(self, session: Overview | None) -> None:
        self._session = session

    def take_history(self, history: History) -> None:
        self._history = history
        if self.display:
            self.repaint()

    def take_detail(self, detail: Detail) -> None:
        if list(detail.checkpoints) != list(self._names):
            self._names = detail.checkpoints
            front_of(self.app).run_quietly(self._list)

    def _list(self) -> None:
        """Runs in a thread."""
        kept = [_kept(self._folder / name) for name in reversed(self._names)]
        self.app.call_from_thread(self._listed, kept)

    def _listed(self, kept: list[Kept]) -> None:
        """The cursor stays with its checkpoint while others come and go; on the newest one it stays with the newest."""
        chosen = self.chosen if self._at else None
        self._kept = kept
        if chosen is not None:  # or, where it is gone, with the next older one
            self._at = next((at for at, one in enumerate(kept) if one.step <= chosen.step), max(0, len(kept) - 1))
        self.repaint()

    def copied(self) -> tuple[str, str]:
        chosen = self.chosen
        return (str(self._folder / chosen.name), "the checkpoint's path") if chosen else ("", "")

    def body(self, width: int, height: int) -> list[Line]:
        if not self._kept:
            return [Line(), *(Line("  ", Span(piece, "dim")) for piece in wrapped(self._nothing(), width - 4))]
        measured = [(title, cells) for title, cells in MEASURED if width >= cells]
        titles = "".join(title.rjust(COLUMN) for title, _ in measured)
        lines = [Line(), Line(Span(f"   {'CHECKPOINT':<18}{'STEP':>9}{titles}{'SIZE':>10}   {'WRITTEN':<9}", "dim"))]
        room = max(1, height - len(lines))
        top = max(0, min(self._at - room // 2, len(self._kept) - room))
        for at in range(top, min(len(self._kept), top + room)):
            lines.append(self._row(self._kept[at], at == self._at, len(measured)))
        return lines

    def _nothing(self) -> str:
        """Why the list is empty, and what would fill it."""
        session = self._session
        if session is None or session.state == "new":
            return "No checkpoint yet: they are written while it trains, as [checkpoint] of its settings says."
        if session.status == "queued":
            return "No checkpoint yet: it waits, and they are written while it trains."
        if session.is_active:
            return "No checkpoint yet: c writes one now, while it trains."
        return "There is no checkpoint: a resume begins at the first step."

    def _measured(self, step: int, columns: int) -> str:
        """What was measured at the step of a checkpoint, in so many of the columns."""
        found = self._history.until(step) if self._history else None
        if found is None:
            return " " * COLUMN * columns
        epoch, *losses = found
        loss, held_out = ("" if math.isnan(value) else words.loss(value) for value in losses)
        return "".join(text.rjust(COLUMN) for text in (loss, held_out, str(epoch))[:columns])

    def _row(self, kept: Kept, is_chosen: bool, measured: int) -> Line:
        line = Line(" ", Span(self.glyphs.pointer if is_chosen else " ", "!focus"), " ", ground="cursor" if is_chosen else "")
        line.add(kept.name.ljust(18), "text").add(f"{kept.step:>9}", "text")
        line.add(self._measured(kept.step, measured), "text").add(words.size(kept.size).rjust(10), "dim")
        line.add(f"   {words.clock(kept.at):<9}", "dim")
        line.add("   averaged too" if kept.has_average else "", "dim")
        if kept is self._kept[0]:
            line.add("   newest", "info")
        return line

    def here(self) -> int:
        return self._at

    def last(self) -> int:
        return len(self._kept) - 1

    def page_rows(self) -> int:
        return max(1, self.inner[1] - 2)

    def walk_to(self, place: int) -> None:
        self._at = max(0, min(place, self.last()))
        self.repaint()

    def _none(self) -> bool:
        if self.chosen is None:
            front_of(self.app).say("there is no checkpoint to choose", "warn")
        return self.chosen is None

    def do_checkpoint_resume(self) -> None:
        if not self._none() and self.chosen is not None:
            front_of(self.app).resume_from(self._called, self.chosen.name, newest=self.chosen is self._kept[0])

    def do_checkpoint_export(self) -> None:
        if not self._none() and self.chosen is not None:
            front_of(self.app).export(self._called, self.chosen.name, self.chosen.has_average)

    def do_checkpoint_delete(self) -> None:
        if not self._none() and self.chosen is not None:
            front_of(self.app).delete_checkpoint(self._called, self.chosen.name)


def _kept(path: Path) -> Kept:
    sizes: dict[str, int] = {}
    at = None
    try:
        with os.scandir(path) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        pass  # gone since it was listed: retention deletes
    number = path.name.removeprefix("step-")
    return Kept(path.name, int(number) if number.isdigit() else 0, sum(sizes.values()), at, AVERAGE in sizes)
