"""Models fetched from a hub on this machine, and what a reporter is told meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fluxtui.engine.family.flux1.components import Components
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.persist.sessions.record import Phase

NAME = "black-forest-labs/FLUX.1-dev"
SECRET = "hf_" + "x" * 34


class Telling(Reporter):
    """Keeps the lines of progress."""

    def __init__(self) -> None:
        super().__init__(None)
        self.lines: list[dict[str, Any]] = []

    def progress(self, phase: Phase | None = None, **what: Any) -> None:
        self.lines.append({"phase": phase} | what)

    def say(self, text: str) -> None:
        assert SECRET not in text

    def counted(self) -> list[int]:
        return [line["item"] for line in self.lines if line.get("unit") == "bytes"]


Fetch = Callable[..., tuple[Components, Telling]]
