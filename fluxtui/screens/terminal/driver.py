"""The terminal itself: writing that never blocks the loop, a hang-up that ends the process, pastes that press no keys."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import struct
import sys
import termios
import threading
import time
from codecs import getincrementaldecoder
from collections.abc import Callable
from dataclasses import replace

from textual import events
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Size

from fluxtui.screens.terminal.gallery import Answer
from fluxtui.screens.terminal.replies import Replies

PASTE = 48  # printable characters in one read that nobody types: a paste without brackets
PASTE_GOES_ON = 0.3  # seconds after a piece of one in which what comes, however short, is its next piece
PATIENCE = 0.4  # seconds that a terminal may take to say what it is: there and back over a slow line
QUIET = 5.0  # seconds between looks at the keyboard while nothing is typed
RESTORE = (  # every mode that Textual or we have set, undone
    "\x1b[?2004l\x1b[?7h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1016l\x1b[?2048l\x1b[<u"
    "\x1b[?1049l\x1b[?25h\x1b[?1004l\x1b[0m\x1b[23;2t"
)


class Writer(threading.Thread):
    """Sends what it is given, in order. A terminal that takes nothing blocks this thread and nothing else."""

    def __init__(self, fileno: int, on_lost: Callable[[], None], on_drained: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="terminal-output")
        self._fileno = fileno
        self._on_lost, self._on_drained = on_lost, on_drained
        self._waiting: list[str] = []
        self._has_news = threading.Condition()
        self._is_closing = False
        self._is_writing = False
        self.is_lost = False

    @property
    def is_behind(self) -> bool:
        """Whether something given earlier has not been taken by the terminal yet."""
        return bool(self._waiting) or self._is_writing

    def write(self, text: str) -> None:
        """Queue the text; nothing is queued for a terminal that is gone."""
        with self._has_news:
            if not self.is_lost:
                self._waiting.append(text)
                self._has_news.notify()

    def close(self, timeout: float) -> None:
        """Wait, so long at most, until all is sent."""
        with self._has_news:
            self._is_closing = True
            self._has_news.notify()
        if self.is_alive():
            self.join(timeout)

    def run(self) -> None:
        while True:
            with self._has_news:
                while not self._waiting and not self._is_closing:
                    self._has_news.wait()
                text = "".join(self._waiting)
                self._waiting.clear()
                self._is_writing = bool(text)
            if not text:
                return
            if not self._send(text.encode("utf-8", "replace")):
                return
            self._is_writing = False
            self._on_drained()

    def _send(self, data: bytes) -> bool:
        while data:
            try:
                count = os.write(self._fileno, data)
            except BlockingIOError:
                with selectors.SelectSelector() as selector:
                    selector.register(self._fileno, selectors.EVENT_WRITE)
                    selector.select()
                continue
            except OSError:
                self.is_lost = True
                self._waiting.clear()
                self._on_lost()
                return False
            data = data[count:]
        return True


class Terminal(LinuxDriver):
    """Textual's driver with three faults fixed.

    Its writer queues 30 pieces and then blocks the loop, or for ever where the terminal is gone; its reader spins on a
    closed terminal; and a paste without brackets, as tmux sends it, presses every key in the text.
    """

    def __init__(self, app: App[object], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        streams = [stream for stream in (sys.__stderr__, sys.__stdout__) if stream is not None]
        self._screen_file = next((stream for stream in streams if stream.isatty()), streams[0])  # `2> file`: on the output
        self._file = self._screen_file
        self.on_lost: Callable[[], None] = lambda: None  # the terminal is gone
        self.on_drained: Callable[[], None] = lambda: None  # all that was queued is sent
        self._out: Writer | None = None
        self._replies = Replies()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    @property
    def is_behind(self) -> bool:
        return self._out is not None and self._out.is_behind

    def size_now(self) -> Size | None:
        """Columns and rows, as the kernel has them; None where it does not know."""
        try:
            columns, rows = os.get_terminal_size(self._screen_file.fileno())
        except OSError:
            return None
        return Size(columns, rows) if columns and rows else None

    def ask_what_it_is(self) -> Answer:
        """What the terminal says of itself within `PATIENCE` seconds, and how large a cell is. Blocks; for threads."""
        self._replies.begin()
        self.write("\x1b[16t\x1b[c")  # every terminal answers the second; the first is answered before it, or not at all
        answer = self._replies.wait(PATIENCE)
        return replace(answer, cell=answer.cell if all(answer.cell) else self._cell_by_kernel())

    def _cell_by_kernel(self) -> tuple[int, int]:
        try:
            packed = fcntl.ioctl(self._screen_file.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        except OSError:
            return 0, 0
        rows, columns, width, height = struct.unpack("HHHH", packed)
        return (width // columns, height // rows) if rows and columns else (0, 0)

    def write(self, data: str) -> None:
        if self._out is None:
            self._out = Writer(self._screen_file.fileno(), lambda: self.on_lost(), lambda: self.on_drained())
            self._out.start()
            self._out.write("\x1b[22;2t")  # remember the title
        self._out.write(data)

    def stop_application_mode(self) -> None:
        super().stop_application_mode()
        self.write("\x1b[23;2t")  # and give it back

    def close(self) -> None:
        super().close()
        if self._out is not None:
            self._out.close(0.3)
            self._out = None

    def restore_now(self, patience: float) -> None:
        """Put the terminal back, for the moment before the process is ended; waits so many seconds for what is being drawn."""
        if self._out is not None:
            self._out.close(patience)
        if self.attrs_before is not None:
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(self.fileno, termios.TCSANOW, self.attrs_before)
        with contextlib.suppress(OSError):
            descriptor = os.open(os.ttyname(self._screen_file.fileno()), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            os.write(descriptor, RESTORE.encode())

    def disable_input(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"x")
        super().disable_input()

    def run_input_thread(self) -> None:
        parser = XTermParser(self._debug)
        decode = getincrementaldecoder("utf-8")(errors="replace").decode
        is_bracketed = False  # inside a paste that the terminal announced: the parser puts its pieces together
        last_key = last_paste = time.monotonic() - PASTE_GOES_ON
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                is_quiet = time.monotonic() - last_key > 1.0
                ready = {key.fd for key, _ in selector.select(QUIET if is_quiet else 0.05)}
                if self._wake_read in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 16)
                if self.fileno in ready:
                    last_key = time.monotonic()
                    text = self._replies.taken(decode(self._read()))
                    if not text and self._is_open:
                        continue
                    if not text and not self._is_open:
                        self.on_lost()
                        return
                    goes_on = last_key - last_paste < PASTE_GOES_ON and "\x1b" not in text
                    if not is_bracketed and (is_paste(text) or goes_on):
                        last_paste = last_key
                        self.process_message(events.Paste(text))
                    else:
                        is_bracketed = text.rfind("\x1b[200~") > text.rfind("\x1b[201~") or (
                            is_bracketed and "\x1b[201~" not in text
                        )
                        for event in parser.feed(text):
                            self.process_message(event)
                for event in parser.tick():
                    self.process_message(event)

    _is_open = True

    def _read(self) -> bytes:
        """What was typed; nothing and `_is_open` false where the terminal is gone."""
        try:
            data = os.read(self.fileno, 4096)
        except OSError:
            data = b""
        self._is_open = bool(data)
        return data


def is_paste(text: str) -> bool:
    """Whether so much printable text came at once that it was not typed. A key that repeats is typed."""
    return len(text) >= PASTE and "\x1b" not in text and len(set(text)) > 3
