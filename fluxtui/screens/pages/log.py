"""The log as a page of the session screen."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from fluxtui.persist.sessions.overview import Overview
from fluxtui.screens.keys.dispatch import bindings_for
from fluxtui.screens.log.pane import LogPane
from fluxtui.screens.pages.page import Page


class LogTab(LogPane, Page):
    """Follows the log while the page is in front. `l` opens it full screen, with search and filter."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_for("reader")
    FRAME = "rule"

    def __init__(self, session: Overview) -> None:
        super().__init__()
        self._log_file = session.path / "training.log"

    def shown(self) -> None:
        self.open(self._log_file)

    def copied(self) -> tuple[str, str]:
        lines = [self.page.line(self.first + at) for at in range(self.rows)]
        return "\n".join(line for line in lines if line is not None), "the lines shown"
