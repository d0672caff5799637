"""The movement keys of every list and page of lines: arrows and vim letters, pages, ends, the wheel."""

from __future__ import annotations

from textual.events import MouseScrollDown, MouseScrollUp

from fluxtui.screens.keys.dispatch import Dispatcher

WHEEL = 3  # places a turn of the wheel


class MovementKeys(Dispatcher):
    """Mixed into a pane that has a place to move: a chosen line, or the line shown first."""

    wheel = WHEEL

    def here(self) -> int:
        """The present place."""
        raise NotImplementedError

    def last(self) -> int:
        """The last place there is."""
        raise NotImplementedError

    def page_rows(self) -> int:
        """Places of a page."""
        raise NotImplementedError

    def walk_to(self, place: int) -> None:
        """Move there; called with places that may lie outside."""
        raise NotImplementedError

    def do_down(self) -> None:
        self.walk_to(self.here() + 1)

    def do_up(self) -> None:
        self.walk_to(self.here() - 1)

    def do_page_down(self) -> None:
        self.walk_to(self.here() + max(1, self.page_rows() - 1))

    def do_page_up(self) -> None:
        self.walk_to(self.here() - max(1, self.page_rows() - 1))

    def do_top(self) -> None:
        self.walk_to(0)

    def do_bottom(self) -> None:
        self.walk_to(self.last())

    def do_follow(self) -> None:
        self.walk_to(self.last())

    def do_wrap(self) -> None:
        """Lines that are not of a log are wrapped always."""

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self.walk_to(self.here() + self.wheel)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self.walk_to(self.here() - self.wheel)
