"""The terminal UI: `run` opens the dashboard and returns when the user leaves. Training never depends on it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from rich.console import RenderableType
from rich.text import Text
from textual._compositor import CompositorUpdate
from textual.events import Resize
from textual.screen import Screen
from textual.theme import Theme

from fluxtui.persist.errors import ExitCode, FluxTUIError
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.overview import Overview
from fluxtui.refusals import Situation
from fluxtui.screens.base_screen import BaseScreen
from fluxtui.screens.board import Board
from fluxtui.screens.drawing.appearance import Look
from fluxtui.screens.drawing.glyphs import glyphs_of
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.drawing.terminal_kind import TerminalKind, detect, first_environment
from fluxtui.screens.drawing.theme import DARK, LIGHT, Inks
from fluxtui.screens.ending import endings, goodbye, title_of
from fluxtui.screens.keys.dispatch import bindings_for
from fluxtui.screens.keys.keys_in_order import KeysInOrder
from fluxtui.screens.navigation import Navigation
from fluxtui.screens.notices import NoticeBoard
from fluxtui.screens.session_actions import JobDone
from fluxtui.screens.settings import Settings, read_settings
from fluxtui.screens.terminal.driver import Terminal
from fluxtui.screens.terminal.gallery import Gallery
from fluxtui.screens.terminal.painter import Painter
from fluxtui.screens.watching.sessions_watch import FirstLook
from fluxtui.screens.watching.watch import DetailSeen, GaugesSeen, HistorySeen, SessionsSeen, Watch

PICO = Path(__file__).parent / "demo" / "pico"
SWITCH = 0.0005  # seconds that a thread which reads may hold up the one that answers keys
TROUBLES = 3  # sentences about config.toml at most; fluxtui doctor has them all
SIZE_EVERY = 2.0  # seconds between looks at the terminal's size
PATIENCE = 0.1  # seconds that what is being drawn may take to reach the terminal once we are told to leave


class FluxApp(KeysInOrder, Navigation):
    """The app: owns the watching threads, the notices, the look; screens own everything seen."""

    TITLE = "fluxtui"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = bindings_for("anywhere")

    def __init__(
        self, home: Home, focus: str | None = None, kind: TerminalKind | None = None, settings: Settings | None = None
    ) -> None:
        self.home = home
        self.settings = settings or Settings()
        self.kind = kind or detect(first_environment(), self.settings.glyphs)
        self.gallery = Gallery(first_environment(), self.kind)
        self.painter = Painter(self.kind, self.gallery)
        self.look = Look(self.kind, glyphs_of(self.kind.tier), Inks(DARK, self.kind))
        super().__init__(driver_class=Terminal if sys.__stdin__ is not None else None)
        self.keys = dict(self.settings.keys)
        self.board_of_notices = NoticeBoard()
        self.board = Board(home.root, self.board_of_notices)
        self.watch_disk = Watch(home, self.post_message)
        self.sessions: dict[str, Overview] = {}
        self._wanted_focus = focus
        self._kept_name = ""  # of the session in view, where a keeper holds it
        self._shown_title = ""
        self._drafts = {}
        self._typed = deque()
        self._is_behind = False
        self._has_settled = False
        self.animation_level = "none"
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = self.settings.theme if self.settings.theme in self.available_themes else DARK.name
        self.set_keymap(self.keys)

    # Beginning and end

    def get_default_screen(self) -> Screen[Any]:
        return self.board

    def on_mount(self) -> None:
        self.theme_changed_signal.subscribe(self, self._theme_changed)
        self.app_resume_signal.subscribe(self, lambda _: self._repaint_all())
        self._theme_changed(self.current_theme)
        self._catch_signals()
        self.watch_disk.start()
        for trouble in self.settings.troubles[:TROUBLES]:
            self.say(trouble, "warn", stays=True)

    def on_unmount(self) -> None:
        self.watch_disk.stop()
        if self._driver is not None and (last := self.painter.farewell()):
            self._driver.write(last)

    def _catch_signals(self) -> None:
        """SIGTERM, SIGHUP and a terminal that is gone all end the UI, at once and in order."""
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self._leave_now, 128 + number)
        driver = self._driver
        if isinstance(driver, Terminal):
            loop = asyncio.get_running_loop()
            driver.on_lost = lambda: self._from_thread(loop, lambda: self._leave_now(128 + signal.SIGHUP))
            driver.on_drained = lambda: self._from_thread(loop, self._caught_up)
            self.gallery.ask = driver.ask_what_it_is

    @staticmethod
    def _from_thread(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(call)

    def _leave_now(self, code: int) -> None:
        """Put the terminal back and end the process. Nothing here needs saving, and a terminal that takes nothing, or is
        gone, would hold up an orderly end for ever."""
        driver = self._driver
        if isinstance(driver, Terminal):
            if last := self.painter.farewell():
                driver.write(last)
            driver.restore_now(PATIENCE)
            os._exit(code)
        self.exit(code)

    # What was seen

    def on_sessions_seen(self, message: SessionsSeen) -> None:
        before, self.sessions = self.sessions, {session.name: session for session in message.sessions}
        self.board.take_sessions(message.sessions, message.trouble)
        if self._wanted_focus in self.sessions:
            self.board.sessions.select(self._wanted_focus)
            self._wanted_focus = None
        self._follow_selected()
        for text, mood in endings(before, self.sessions):
            self.say(text, mood, stays=mood != "info")  # who stopped one knows, and it stands in the list
            self.bell()
        self.drop_moot_question()
        self._send_title()
        for screen in self.screen_stack:
            if isinstance(screen, BaseScreen) and screen is not self.board:
                screen.take_session(self.sessions.get(screen.session_name))

    def on_history_seen(self, message: HistorySeen) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, BaseScreen):
                screen.take_history(message.name, message.history)

    def on_detail_seen(self, message: DetailSeen) -> None:
        self._kept_name = message.detail.name if message.detail.is_kept else ""
        self.drop_moot_question()
        for screen in self.screen_stack:
            if isinstance(screen, BaseScreen):
                screen.take_detail(message.detail)
                screen.footer.repaint()

    def on_gauges_seen(self, message: GaugesSeen) -> None:
        self.board.take_gauges(message.host, message.gpus)

    def on_sessions_picked(self) -> None:
        self._follow_selected()

    def _follow_selected(self) -> None:
        session = self.board.sessions.selected
        self.board.show_selected(session)  # first: what the threads then say is taken by whoever shows that session
        self.watch_disk.follow(self._name_in_view() or (session.name if session else ""))
        self.board.follow_log(session)

    def _name_in_view(self) -> str:
        """Of the session that the uppermost screen of one session shows; empty where the dashboard is all there is."""
        sheets = (screen for screen in reversed(self.screen_stack) if isinstance(screen, BaseScreen))
        return next((sheet.session_name for sheet in sheets if sheet.session_name), "")

    def follow_beside(self, names: Sequence[str]) -> None:
        self.watch_disk.follow_beside(names)

    def situation(self, name: str = "") -> Situation:
        """What keys act on: the session of that name, by default the one whose screen is open, whatever the dashboard's list has
        selected meanwhile."""
        name = name or self._name_in_view()
        session = self.sessions.get(name) if name else self.board.sessions.selected
        is_hidden = session is None and bool(self.sessions)  # there are some, and the filter shows none
        is_kept = session is not None and session.name == self._kept_name
        return Situation(session, PICO.is_dir(), is_hidden, is_kept, gone=name if session is None else "")

    # Actions that are not of a session

    def do_quit(self) -> None:
        self.exit(0)

    def do_leave(self) -> None:
        self.exit(0)

    def do_redraw(self) -> None:
        self._repaint_all()

    def do_put_away(self) -> None:
        self.do_dismiss()

    def do_dismiss(self) -> None:
        self.board_of_notices.dismiss()
        if isinstance(self.screen, BaseScreen):
            self.screen.notices.show()

    def do_theme(self) -> None:
        """The next theme; `config.toml` makes one stay."""
        names = sorted(name for name in self.available_themes if not name.startswith("ansi"))
        self.theme = names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0]
        self.say(f'theme {self.theme}; to keep it, write theme = "{self.theme}" under [ui] in config.toml')

    def select_later(self, name: str) -> None:
        self._wanted_focus = name

    # What is shown

    def say(self, text: str, kind: str = "info", stays: bool = False) -> None:
        """A notice on whatever screen is on top."""
        self.board_of_notices.add(text, kind, stays)
        if isinstance(self.screen, BaseScreen):
            self.screen.notices.show()

    def on_job_done(self, message: JobDone) -> None:
        message.done()

    def _send_title(self) -> None:
        """The terminal's title: "fluxtui 43 % 12m"."""
        title = title_of(self.sessions.values())
        if title != self._shown_title and self._driver is not None and not self.is_headless:
            self._shown_title = title
            self._driver.write(f"\x1b]2;{title}\x07")

    def _theme_changed(self, theme: Theme) -> None:
        self.look = Look(self.kind, self.look.glyphs, Inks(theme, self.kind))
        for screen in self.screen_stack:
            for pane in screen.query(Pane):
                pane.repaint()  # each keeps its lines as they were drawn
        self.screen.refresh(layout=True)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Send only what differs from what the terminal shows; nothing while it has not taken what was sent before."""
        update = cast(object, renderable)
        if isinstance(update, CompositorUpdate) and self._running and not self._closed and not self._batch_count:
            if isinstance(self._driver, Terminal) and self._driver.is_behind:
                self._is_behind, renderable = True, None
            else:
                renderable = cast(Any, self.painter.frame(update))
            if not self._has_settled:
                self._has_settled = True
                self.call_next(self._settle)
        super()._display(screen, renderable)

    def _fatal_error(self) -> None:
        """A fault of ours ends the window and no training: said in a sentence, with the traceback in a file."""
        from fluxtui.persist.fault import record_fault

        error = self._exception if isinstance(self._exception, Exception) else RuntimeError("nobody knows")
        self._exit_renderables.append(Text(f"fluxtui: {record_fault([], error)}. Training goes on; fluxtui shows it again."))
        self._close_messages_no_wait()

    def _settle(self) -> None:
        """The first frame is out: now comes what would have held it up."""
        self.watch_disk.start_gauges()
        self.set_interval(SIZE_EVERY, self._mind_size)
        gc.freeze()  # what the imports made stays for good
        gc.enable()

    def _caught_up(self) -> None:
        """The terminal has taken everything: draw what was left out meanwhile."""
        if self._is_behind and self._running:
            self._is_behind = False
            self.screen.refresh()

    def _mind_size(self) -> None:
        """Lay out anew where the terminal is of another size than we were told: containers and relays lose that signal."""
        driver = self._driver
        if isinstance(driver, Terminal) and (size := driver.size_now()) is not None and size != self.size:
            self.post_message(Resize(size, size))

    def _repaint_all(self) -> None:
        self.painter.forget()
        self.screen.refresh(layout=True)


def run(home: Home, focus: str | None = None, first: FirstLook | None = None) -> int:
    """Open the UI, with a session selected where one is named; the exit code. What goes on training is said at the end."""
    if sys.__stdin__ is None or not sys.__stdin__.isatty() or not _has_screen():
        print(
            "The terminal UI needs a terminal; without one, `fluxtui ls` and `fluxtui show NAME` tell the same.", file=sys.stderr
        )
        return ExitCode.USAGE
    sys.setswitchinterval(SWITCH)
    app = FluxApp(home, focus, settings=read_settings(home.config))
    app.watch_disk.look_early(first)
    code = app.run()
    if not code:
        _say_goodbye(home)
    return code or app.return_code or 0


def _has_screen() -> bool:
    return any(stream is not None and stream.isatty() for stream in (sys.__stderr__, sys.__stdout__))


def _say_goodbye(home: Home) -> None:
    """On the terminal that the user is back at: what goes on without the UI, and what needs somebody."""
    from fluxtui.persist.sessions.overview import look_all

    try:
        for line in goodbye(look_all(home)):
            print(line, file=sys.stderr)
    except FluxTUIError:
        return
