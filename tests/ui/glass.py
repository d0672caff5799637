"""A terminal made of glass: runs the real UI on a real pty, keeps every byte, and notices any sequence we do not send."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.cells import get_character_cell_size

ROOT = Path(__file__).parent.parent.parent
OPEN_UI = (
    "import sys; from pathlib import Path; from fluxtui.app import run; from fluxtui.persist.home import Home; "
    "sys.exit(run(Home.open(Path(sys.argv[1])), *sys.argv[2:3]))"
)
_KNOWN = re.compile(
    r"\x1b\[(?:(?P<move>\d+;\d+)H|(?P<style>[\d;]*)m|\?(?P<mode>[\d;]+)(?P<set>[hl])|[<>]?\d*u|\?\d+\$p|2[23];2t|(?P<wipe>2)J)"
    r"|(?P<question>\x1b\[16t|\x1b\[c)|(?P<picture>\x1bP[\d;]*q[^\x1b]*\x1b\\|\x1b_G[^\x1b]*\x1b\\)"
    r"|\x1b\]2;(?P<title>[^\x07\x1b]*)\x07|\x1b\]52;c;(?P<copy>[A-Za-z0-9+/=]*)\x07|\x1b\]22;[a-z]*\x07"
)
OUR_MODES = {"1049", "25", "1000", "1002", "1003", "1004", "1006", "1015", "1016", "2004", "7", "2026", "2048"}


class Glass:
    """Cells of a screen, drawn by the sequences that FluxTUI sends; every other control character is a leak."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.cells = [[" "] * columns for _ in range(rows)]
        self.leaks: list[str] = []
        self.modes: set[str] = set()
        self.title = ""
        self.copied: list[str] = []
        self.questions: list[str] = []  # what it was asked of itself
        self.pictures: list[tuple[tuple[int, int], str]] = []  # column and row of the cursor, the sequence
        self.bells = 0
        self.styles: set[str] = set()
        self._at = (0, 0)
        self._rest = ""

    def feed(self, text: str) -> None:
        text = self._rest + text
        self._rest = ""
        at = 0
        while at < len(text):
            character = text[at]
            if character == "\x1b":
                found = _KNOWN.match(text, at)
                if found is None:
                    if len(text) - at < (2**20 if text[at : at + 2] in ("\x1bP", "\x1b_") else 200):
                        self._rest = text[at:]
                        return
                    self.leaks.append(text[at : at + 20])
                    at += 1
                    continue
                self._obey(found)
                at = found.end()
                continue
            at += 1
            self._put(character)

    def _obey(self, found: re.Match[str]) -> None:
        if found["move"]:
            row, column = map(int, found["move"].split(";"))
            self._at = (column - 1, row - 1)
        elif found["style"]:
            self.styles.add(found["style"])
        elif found["mode"]:
            for mode in found["mode"].split(";"):
                if mode not in OUR_MODES:
                    self.leaks.append(found[0])
                (self.modes.add if found["set"] == "h" else self.modes.discard)(mode)
        elif found["title"] is not None:
            self.title = found["title"]
        elif found["copy"] is not None:
            self.copied.append(found["copy"])
        elif found["question"] is not None:
            self.questions.append(found["question"])
        elif found["picture"] is not None:
            self.pictures.append((self._at, found["picture"]))

    def _put(self, character: str) -> None:
        code = ord(character)
        if character == "\x07":
            self.bells += 1
        elif character in "\r\n":
            pass
        elif code < 0x20 or 0x7F <= code < 0xA0 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069:
            self.leaks.append(repr(character))
        else:
            x, y = self._at
            width = get_character_cell_size(character)
            if 0 <= y < self.rows and 0 <= x < self.columns:
                self.cells[y][x] = character
                if width == 2 and x + 1 < self.columns:
                    self.cells[y][x + 1] = ""
            self._at = (x + width, y)

    @property
    def text(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self.cells)


class PtyApp:
    """The UI, as a user's shell starts it."""

    def __init__(
        self,
        home: Path,
        columns: int = 80,
        rows: int = 24,
        has_controlling_terminal: bool = True,
        program: str = OPEN_UI,
        **environment: str,
    ) -> None:
        self.glass = Glass(columns, rows)
        self.master, slave = pty.openpty()
        self._size(slave, columns, rows)
        self.before = termios.tcgetattr(slave)
        self.slave_name = os.ttyname(slave)
        base = {
            key: value for key, value in os.environ.items() if key not in {"TMUX", "NO_COLOR", "LC_ALL", "LC_CTYPE", "COLORTERM"}
        }
        base |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(home)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=base | environment,
            start_new_session=True,
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if has_controlling_terminal else None,
        )
        self._slave = slave
        self.received = bytearray()
        self._is_paused = threading.Event()
        self._is_over = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @staticmethod
    def _size(descriptor: int, columns: int, rows: int) -> None:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        import codecs

        decode = codecs.getincrementaldecoder("utf-8")().decode
        while not self._is_over.is_set():
            if self._is_paused.is_set():
                time.sleep(0.01)
                continue
            try:
                if not select.select([self.master], [], [], 0.02)[0]:
                    continue  # no read is pending while the master is closed: the kernel hangs up at once
                data = os.read(self.master, 65536)
            except (OSError, ValueError):
                return
            if not data:
                return
            self.received += data
            self.glass.feed(decode(data))

    def pause(self, is_paused: bool) -> None:
        """A terminal that takes nothing, as over a stalled line."""
        (self._is_paused.set if is_paused else self._is_paused.clear)()

    def resize(self, columns: int, rows: int) -> None:
        self.glass.columns, self.glass.rows = columns, rows
        self.glass.cells = [[" "] * columns for _ in range(rows)]
        self._size(self.master, columns, rows)
        self.process.send_signal(signal.SIGWINCH)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def see(self, what: str | Callable[[str], bool], seconds: float = 20.0) -> str:
        """The screen, once it shows the text."""
        end = time.monotonic() + seconds
        while True:
            text = self.glass.text
            if what in text if isinstance(what, str) else what(text):
                return text
            assert time.monotonic() < end, f"{what!r} not within {seconds:.0f} s in\n{text}"
            assert self.process.poll() is None, f"ended: {self.process.returncode}\n{text}"
            time.sleep(0.01)

    def attributes(self) -> list[object]:
        return termios.tcgetattr(self._slave)

    def close_master(self) -> None:
        """The terminal is gone: the line dropped."""
        self._stop_reading()
        os.close(self._slave)
        self._slave = -1
        os.close(self.master)
        self.master = -1

    def _stop_reading(self) -> None:
        """Before a descriptor is closed: its number may be another terminal's in a moment."""
        self._is_over.set()
        self._reader.join(10)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._stop_reading()
        for descriptor in (self._slave, self.master):
            if descriptor >= 0:
                os.close(descriptor)

    def __enter__(self) -> PtyApp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
