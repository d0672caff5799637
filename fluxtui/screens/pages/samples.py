"""The pictures drawn along the way: all prompts of one step side by side, or one prompt over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual.binding import BindingType

from fluxtui.persist.sessions.overview import Overview
from fluxtui.refusals import stands
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.ink import Line, Span, both_ends, fit, shorten, wrapped
from fluxtui.screens.keys.dispatch import Dispatcher, bindings_for, front_of
from fluxtui.screens.pages.page import Page
from fluxtui.screens.pages.picture import Drawings, Drawn
from fluxtui.screens.watching.watch import Detail

GAP = 2  # cells between pictures


class SamplePage(Page, Dispatcher):
    """Steps from left to right, prompts from top to bottom."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_for("samples")
    context = "samples"

    def __init__(self, session: Overview) -> None:
        super().__init__()
        self._folder = session.path / "samples"
        self._session: Overview | None = session
        self._steps: Sequence[str] = ()
        self._has_prompts = True  # until its settings are read
        self.at_step = -1  # place among the steps; -1: the newest
        self.at_prompt = 0
        self.is_across = False  # one prompt over all steps
        self._drawings = Drawings(self)
        self._files: dict[str, list[Path]] = {}

    def take_session(self, session: Overview | None) -> None:
        self._session = session
        if not self._steps:
            self.repaint()

    def take_detail(self, detail: Detail) -> None:
        self._has_prompts = detail.spec is None or bool(detail.spec.sample.prompts)
        if detail.samples != self._steps:
            self._steps = detail.samples
            if self._steps:
                self._files.pop(self._steps[-1], None)  # the newest one may still be growing
        if self.display:
            self.shown()

    def shown(self) -> None:
        front_of(self.app).run_quietly(self._list)

    def copied(self) -> tuple[str, str]:
        files = self._pictures()
        return (str(files[min(self._chosen, len(files) - 1)][1]), "the picture's path") if files else ("", "")

    @property
    def _chosen(self) -> int:
        """Place of the chosen picture among those of `_pictures`."""
        return self._place() if self.is_across else self.at_prompt

    def _list(self) -> None:
        """Runs in a thread: which pictures there are."""
        found = {step: sorted((self._folder / step).glob("*.png")) for step in self._steps}
        self.app.call_from_thread(self._listed, found)

    def _listed(self, found: dict[str, list[Path]]) -> None:
        self._files = found
        self.repaint()

    def _place(self) -> int:
        return len(self._steps) - 1 if self.at_step < 0 else min(self.at_step, len(self._steps) - 1)

    def _pictures(self) -> list[tuple[str, Path]]:
        """What is to be shown, with a label each."""
        if not self._steps:
            return []
        if self.is_across:
            return [
                (_step_words(step), files[self.at_prompt]) for step, files in self._files.items() if self.at_prompt < len(files)
            ]
        files = self._files.get(self._steps[self._place()], [])
        return [(f"prompt {number + 1}", file) for number, file in enumerate(files)]

    # Drawing

    def body(self, width: int, height: int) -> list[Line]:
        pictures = self._pictures()
        if not pictures:
            return [Line(), *(Line("  ", Span(piece, "dim")) for piece in wrapped(self._nothing(), width - 4))]
        width -= 2
        columns, rows, cell_width, cell_height = grid(len(pictures), width, height - 1)
        start = self._first(len(pictures), columns * rows)
        shown = pictures[start : start + columns * rows]
        drawn = [self._drawings.get(path, cell_width, cell_height - 2) for _, path in shown]
        beside = Line()
        if len(shown) < len(pictures):  # the rest is above or below
            what = "steps" if self.is_across else "prompts"
            beside.add(f"{start + 1} to {start + len(shown)} of {len(pictures)} {what}", "dim")
        prompt = next((one.caption for one in drawn if one), "")
        lines = [both_ends(self._title(width - beside.width - 2, len(pictures), prompt), beside, width)]
        for row in range(0, len(shown), columns):
            chosen = self._chosen - start - row
            lines += self._row(shown[row : row + columns], drawn[row : row + columns], cell_width, cell_height, chosen)
        return [Line(" ").extend(line) for line in lines]

    def _nothing(self) -> str:
        session = self._session
        if not self._has_prompts:
            again = "e sets some" if session is not None and session.state == "new" else "N makes a session with some"
            return f"No samples: its settings have no prompts to draw; {again}."
        if session is not None and session.status == "running" and session.is_active:
            return "No samples yet: p draws them now."
        return "No samples were drawn: p draws them, but only while it trains" + (f"; {stands(session)}." if session else ".")

    def _first(self, total: int, fits: int) -> int:
        """The picture shown first, so that the chosen one is seen."""
        return max(0, min(self._chosen - fits + 1, total - fits)) if total > fits else 0

    def _title(self, width: int, total: int, prompt: str) -> Line:
        if self.is_across:
            line = Line(Span(f"prompt {self.at_prompt + 1} over {words.count(total, 'step')}", "!text"))
            return line.add(f"  {shorten(prompt, max(0, width - line.width - 2), self.glyphs.ellipsis)}" if prompt else "", "dim")
        step = self._steps[self._place()]
        return Line(Span(_step_words(step), "!text"), Span(f"  {self._place() + 1} of {len(self._steps)}", "dim"))

    def _row(
        self, shown: Sequence[tuple[str, Path]], drawn: Sequence[Drawn | None], width: int, height: int, chosen: int
    ) -> list[Line]:
        """Pictures side by side with their labels; the label of the chosen one stands out and says so without colour too."""
        lines = [Line() for _ in range(height)]
        for at, ((label, _), picture) in enumerate(zip(shown, drawn, strict=True)):
            texts = list(picture.lines) if picture else []
            if picture is not None and picture.trouble:
                texts = [Line(Span(shorten(picture.trouble, width), "warn"))]
            if picture is None:
                texts = [Line(Span("drawing", "faint"))]
            title = f"{label}  {picture.caption}" if picture and picture.caption and not self.is_across else label
            title = f"{self.glyphs.pointer}{title}" if at == chosen else title
            for y in range(height - 2):
                part = Line().extend(texts[y]) if y < len(texts) else Line()
                lines[y].extend(part.to(width)).add(" " * GAP)
            pieces = wrapped(title, width)
            if len(pieces) > 2:
                pieces[1:] = [shorten(" ".join(pieces[1:]), width, self.glyphs.ellipsis)]
            for y in range(2):
                lines[height - 2 + y].add(
                    fit(pieces[y] if y < len(pieces) else "", width), "text" if at == chosen else "dim"
                ).add(" " * GAP)
        return lines

    # Actions

    def do_sample_left(self) -> None:
        self.at_step = max(0, self._place() - 1)
        self.repaint()

    def do_sample_right(self) -> None:
        to = self._place() + 1
        self.at_step = -1 if to >= len(self._steps) - 1 else to
        self.repaint()

    def do_sample_prompt(self) -> None:
        most = max((len(files) for files in self._files.values()), default=1)
        self.at_prompt = min(self.at_prompt + 1, most - 1)
        self.repaint()

    def do_sample_prompt_back(self) -> None:
        self.at_prompt = max(0, self.at_prompt - 1)
        self.repaint()

    def do_sample_layout(self) -> None:
        self.is_across = not self.is_across
        self.repaint()


def grid(count: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Columns, rows, and the cells of each picture with its two label lines: as large as can be, and then as many as can be.

    A picture is taken for square: as many cells wide as it has half-cells of height.
    """
    best = (0, 1, 1, max(4, width), max(4, height))
    for columns in range(1, min(count, 12) + 1):
        rows = -(-count // columns)
        cell_width = (width + GAP) // columns - GAP
        cell_height = height // rows
        while cell_height < 8 and rows > 1:  # fewer rows at once rather than pictures of no size
            rows -= 1
            cell_height = height // rows
        side = min(cell_width, 2 * (cell_height - 2))
        if (side, min(count, columns * rows)) > (best[0], min(count, best[1] * best[2])):
            best = (side, columns, rows, min(cell_width, side), side // 2 + 2)
    return best[1:]


def _step_words(name: str) -> str:
    """ "step-000000480" as people say it."""
    return f"step {int(name.removeprefix('step-'))}" if name.removeprefix("step-").isdigit() else name
