"""What every page of the session screen is: a pane that takes what was seen on disk."""

from __future__ import annotations

from typing import ClassVar

from fluxtui.persist.sessions.overview import Overview
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.watching.history import History
from fluxtui.screens.watching.watch import Detail


class Page(Pane):
    """One page of a session. Takes what was seen on disk; `context` names its own actions."""

    FRAME = "bare"
    can_focus = True
    context: ClassVar[str] = ""

    def take_session(self, session: Overview | None) -> None: ...
    def take_history(self, history: History) -> None: ...
    def take_other(self, name: str, history: History) -> None: ...
    def take_detail(self, detail: Detail) -> None: ...

    def shown(self) -> None:
        """The page has come to the front."""

    def copied(self) -> tuple[str, str]:
        """What `y` copies, and what to call it."""
        return "", ""
