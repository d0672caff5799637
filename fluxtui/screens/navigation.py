"""Opening one screen from another. Screens are imported when they are first opened, so that the dashboard comes up sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.events import Event, Key

from fluxtui.actions import BY_NAME, keys_of
from fluxtui.screens.base_screen import BaseScreen
from fluxtui.screens.board import Board
from fluxtui.screens.notices import NoticeBoard
from fluxtui.screens.session_actions import SessionActions

if TYPE_CHECKING:
    from fluxtui.screens.form.fields import Evaluation
    from fluxtui.screens.form_screen import Draft


class Navigation(SessionActions):
    """The app, as far as it opens screens."""

    board: Board
    board_of_notices: NoticeBoard
    keys: dict[str, str]
    _drafts: dict[tuple[str, bool], Draft]

    async def on_event(self, event: Event) -> None:
        """Where nothing is shown for want of room, only what is said there: nobody sees what any other key would do."""
        if isinstance(event, Key) and isinstance(self.screen, BaseScreen) and self.screen.is_too_small:
            leaving = {key for name in ("quit", "leave") for key in keys_of(BY_NAME[name], self.keys)}
            if event.key in leaving:
                self.exit(0)
            return
        await super().on_event(event)

    def withdraw(self, text: str) -> None:
        self.board_of_notices.withdraw(text)
        if isinstance(self.screen, BaseScreen):
            self.screen.notices.show()

    def do_open(self) -> None:
        from fluxtui.screens.session import SessionScreen

        self.watch_disk.tell_again()
        self.push_screen(SessionScreen(self.board_of_notices, self._chosen()))

    def do_edit(self) -> None:
        if self._chosen().state == "new" or self._chosen().never_trained:
            self.edit_settings()
            return
        from fluxtui.screens.session import SessionScreen

        self.watch_disk.tell_again()
        self.push_screen(SessionScreen(self.board_of_notices, self._chosen(), "captions"))

    def edit_settings(self) -> None:
        """The form, over the settings of the session."""
        self._open_form(self._chosen().name, edits=True)

    def do_log(self) -> None:
        from fluxtui.screens.log_screen import LogScreen

        session = self._chosen()
        self.push_screen(LogScreen(self.board_of_notices, session.name, session.path / "training.log"))

    def do_new(self) -> None:
        self._open_form("")

    def do_clone(self) -> None:
        self._open_form(self._chosen().name)

    def _open_form(self, origin: str, edits: bool = False) -> None:
        from fluxtui.screens.form_screen import Draft, FormScreen

        gauges = self.board.gauges.gpus
        draft = self._drafts.setdefault((origin, edits), Draft(origin, bool(gauges and gauges.devices), edits))
        self.push_screen(FormScreen(self.board_of_notices, self.home, draft, self._make_session))

    def _make_session(self, draft: Draft, seen: Evaluation, starts: bool) -> None:
        self._drafts.pop((draft.origin, draft.edits), None)
        self.make(draft.origin, seen, starts, draft.edits)

    def do_help(self) -> None:
        from fluxtui.screens.help import HelpScreen

        if isinstance(self.screen, BaseScreen):
            self.push_screen(HelpScreen(self.board_of_notices, self.screen.chains))

    def do_palette(self) -> None:
        from fluxtui.screens.dialogs.palette import Palette

        if isinstance(self.screen, BaseScreen):
            self.push_screen(Palette(self.screen.contexts, self.screen.chains), self._do_chosen)

    def _do_chosen(self, name: str | None) -> None:
        if name and isinstance(self.screen, BaseScreen):
            self.screen.actor.action_do(name)

    def do_copy(self) -> None:
        from fluxtui.screens.terminal.copying import copy

        session = self._chosen()
        text, what = (session.output, "the file's path") if session.output else (session.name, "the name")
        copy(self, text, what)
