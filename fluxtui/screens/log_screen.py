"""The log of one session, full screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from textual.geometry import Region, Size
from textual.widget import Widget

from fluxtui.screens.base_screen import BaseScreen
from fluxtui.screens.dialogs.filter_line import FilterLine
from fluxtui.screens.keys.dispatch import bindings_for, front_of
from fluxtui.screens.log.view import LogView, older
from fluxtui.screens.notices import NoticeBoard


class LogScreen(BaseScreen):
    """The log of one session."""

    BINDINGS = bindings_for("log")
    FOOTER: ClassVar[tuple[str, ...]] = ("log",)

    def __init__(self, board: NoticeBoard, session: str, path: Path) -> None:
        super().__init__(board)
        self.session_name = session
        self.view = LogView(session)
        self._path = path
        self.line = FilterLine("search")
        self._filters = False
        self._typed = {False: "", True: ""}  # what each prompt, search or filter, was given last

    def panes(self) -> list[Widget]:
        return [self.view, self.line]

    def places(self, size: Size) -> Mapping[Widget, Region]:
        places: dict[Widget, Region] = {self.view: Region(0, 0, size.width, size.height)}
        if self.line.is_open:
            places[self.line] = Region(0, size.height - 1, size.width, 1)
            places[self.view] = Region(0, 0, size.width, size.height - 1)
        return places

    def on_mount(self) -> None:
        self.view.focus()
        self.call_after_refresh(self.view.open, self._path)

    def do_back(self) -> None:
        if self.view.chosen is not None:
            self.view.choose()
            return
        if self.view.search is not None:
            self.view.look_for("", False)
            return
        self.view.close()
        self.dismiss()

    def do_log_search(self) -> None:
        self._open_line(False)

    def do_log_filter(self) -> None:
        self._open_line(True)

    def _open_line(self, filters: bool) -> None:
        self._filters = filters
        self.line.open(self._typed[filters], "only" if filters else "search", is_chosen=True)
        self.place()

    def on_filter_line_changed(self, message: FilterLine.Changed) -> None:
        if self._filters:
            self.line.say(self.view.look_for(message.text, True))

    def on_filter_line_closed(self, message: FilterLine.Closed) -> None:
        if message.keeps:
            self._typed[self._filters] = message.text
        trouble = self.view.look_for(message.text if message.keeps else "", self._filters)
        if trouble:
            front_of(self.app).say(f"{message.text} cannot be searched for: {trouble}", "warn")
        self.view.focus()
        self.place()

    def do_log_next(self) -> None:
        self.view.go_to_match(1)

    def do_log_previous(self) -> None:
        self.view.go_to_match(-1)

    def do_log_marker(self) -> None:
        self.view.go_to_marker(1)

    def do_log_marker_back(self) -> None:
        self.view.go_to_marker(-1)

    def do_log_left(self) -> None:
        self.view.do_log_left()

    def do_log_right(self) -> None:
        self.view.do_log_right()

    def do_follow(self) -> None:
        self.view.follow()

    def do_wrap(self) -> None:
        self.view.do_wrap()

    def do_log_choose(self) -> None:
        self.view.choose()

    def do_copy(self) -> None:
        self.view.copy()

    def do_log_older(self) -> None:
        """The part before, and back. After a rotation: where the reader was."""
        before = older(self._path)
        if self.view.path == before:
            self._show(self._path, 0)
        else:
            front_of(self.app).run_quietly(lambda: self.app.call_from_thread(self._show_older, before, before.exists()))

    def _show_older(self, path: Path, is_there: bool) -> None:
        if is_there:
            self._show(path, self.view.lost_byte)
        else:
            front_of(self.app).say(f"there is no part before: {path.name} is made when the log has grown long", "info")

    def _show(self, path: Path, byte: int) -> None:
        search, filters = self.view.search, self.view.is_filtered
        self.view.open_at(path, byte)
        if search is not None and filters:
            self.view.look_for(search.pattern, True)
