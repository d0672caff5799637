"""How the terminal UI behaves: first paint, bytes sent, processor time, keys, long logs; its anchors beside it.

    python bench/ui.py [--only paint,bytes,keys,index,memory,filter,exit] [--toolong PATH] [--nvitop PATH]

A real UI on a real pty. The session that trains is played by another process: ten steps a second into real files.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import shutil
import signal
import statistics
import struct
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

import psutil
from _clock import row
from _played import Played, begin
from front import FLUXTUI, fabricate

from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home
from fluxtui.persist.logfile import LogIndex
from fluxtui.screens.log.search import LogSearch
from tests.ui.fabricate import make_record, make_session
from tests.ui.glass import PtyApp

LAST = "the very last line"
BARE_APP = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("sessions")
Bare().run()
"""


def seconds_to(text: bytes, command: list[str], environment: dict[str, str]) -> float:
    """Seconds until a program on a terminal of 120×36 has sent the text; it is ended then."""
    began = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
    seen = b""
    try:
        while text not in seen:
            seen += os.read(terminal, 65536)
        return time.perf_counter() - began
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def write_log(path: Path, megabytes: int) -> None:
    """Numbered lines up to so many megabytes, and a last one; one early line holds the words of the last."""
    block = b"".join(b"12:00:00 step %06d  loss 0.0412  0.072 s/step  some more words\n" % number for number in range(16_000))
    with path.open("wb") as log:
        log.write(b"said early: " + LAST.encode() + b"\n")
        for _ in range(megabytes * 1_000_000 // len(block)):
            log.write(block)
        log.write(LAST.encode() + b"\n")


def paint(root: Path, arguments: argparse.Namespace) -> None:
    """Exec to the first frame that shows sessions; 1000 of them, the one in view with a log of 1 GB."""
    home = Home.open(root / "many")
    fabricate(home.root, 1000)
    folder = begin(home, "trains")
    write_log(folder.log_file, 1000)
    lock = Lock.take(folder.lock_file)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"FLUXTUI_HOME": str(home.root), "TERM": "xterm-256color"}
    contenders = {
        "bare Textual app": ([sys.executable, "-c", BARE_APP], b"sessions"),
        "fluxtui, 1000 sessions and a log of 1 GB": ([FLUXTUI], b"session-0"),
    }
    for name, (command, text) in contenders.items():
        values = [seconds_to(text, command, environment) for _ in range(arguments.runs + 1)][1:]
        print(row(f"first paint, {name}", values, 0.6 if name.startswith("fluxtui") else None))
    if lock:
        lock.release()


def watched(home: Home, columns: int, rows: int, seconds: float) -> tuple[float, float]:
    """Bytes a second, and share of a core in per cent."""
    with PtyApp(home.root, columns, rows) as ui:
        ui.see("sessions", 60)
        time.sleep(4)
        sent, used, began = len(ui.received), ui.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        return (len(ui.received) - sent) / took, 100 * (ui.cpu_seconds() - used) / took


def bytes_and_share(root: Path, arguments: argparse.Namespace) -> None:
    """What the line and the processor bear while nothing changes, and while a training is watched."""
    idle = Home.open(root / "idle")
    make_record(make_session(idle, "resting"), status="stopped", step=10, reason="stopped")
    sent, used = watched(idle, 80, 24, arguments.seconds)
    print(row("idle, bytes a second at 80×24", [sent], 100, "B/s"))
    print(row("idle, share of a core", [used], 1, "%"))
    for rate, limits, what in ((0.2, (2000, 4000), "log at rest"), (20.0, (20_000, 60_000), "log scrolling")):
        home = Home.open(root / f"trains-{rate}")
        played = Played(home, "trains", rate)
        for (columns, rows), limit in zip(((80, 24), (200, 60)), limits, strict=True):
            sent, used = watched(home, columns, rows, arguments.seconds)
            print(row(f"training watched, {what}, bytes a second at {columns}×{rows}", [sent], limit, "B/s"))
            print(row(f"training watched, {what}, share of a core at {columns}×{rows}", [used], 5, "%"))
        played.stop()
    if arguments.nvitop:
        with PtyApp(idle.root, 120, 36, program=f"import os, sys; os.execv({arguments.nvitop!r}, ['nvitop'])") as ui:
            time.sleep(3)
            said = ui.process.poll() is not None
            print(f"nvitop: {'ends at once here, without a driver' if said else f'{len(ui.received)} bytes in 3 s'}")


def pressed(ui: PtyApp, key: str, is_there: object) -> float:
    """Milliseconds from a key to the screen that answers it."""
    assert callable(is_there)
    began, seen = time.perf_counter(), -1
    ui.type(key)
    while time.perf_counter() - began < 5:
        if len(ui.received) == seen:
            time.sleep(0.0005)
            continue
        seen = len(ui.received)
        if is_there(ui.glass.text):
            return 1000 * (time.perf_counter() - began)
    raise AssertionError(f"{key} was not answered in 5 s")


ORDERS = ("by name", "by state", "by progress", "by loss")


def answers(ui: PtyApp, presses: int) -> list[float]:
    """Milliseconds of `o` (another order), again and again; ascending."""
    found = []
    for number in range(presses):
        wanted = (*ORDERS, "")[number % 5]

        def is_there(text: str, wanted: str = wanted) -> bool:
            return wanted in text if wanted else not any(order in text for order in ORDERS)

        found.append(pressed(ui, "o", is_there))
        time.sleep(0.05)
    return sorted(found)


def scrolled(ui: PtyApp, presses: int) -> list[float]:
    """Milliseconds of `j` and `k` in the full-screen log, held at its top, until its first line is another; ascending."""
    ui.type("g")
    time.sleep(1)
    found = []
    for number in range(presses):
        first = ui.glass.text.splitlines()[1]
        found.append(pressed(ui, "jk"[number % 2], lambda text, first=first: text.splitlines()[1] != first))
        time.sleep(0.05)
    return sorted(found)


def p95(values: list[float]) -> float:
    """Of ascending values."""
    return values[int(0.95 * len(values))]


def keys(root: Path, arguments: argparse.Namespace) -> None:
    """Key to screen while the log in view takes 100,000 lines a second: on the dashboard, and in the log full screen."""
    home = Home.open(root / "flood")
    played = Played(home, "floods", 100_000)
    with PtyApp(home.root, 120, 36) as ui:
        ui.see("sessions", 60)
        time.sleep(2)
        on_board = answers(ui, 100)
        ui.type("l")
        ui.see(lambda text: "of a log that scrolls" in text and "sessions" not in text, 60)
        in_log = scrolled(ui, 100)
    played.stop()
    for name, values in (("dashboard", on_board), ("log full screen", in_log)):
        print(row(f"key to screen, p95, log of 100,000 lines a second, {name}", [p95(values)], 60, "ms"))
        print(row(f"key to screen, median, {name}", [statistics.median(values)], None, "ms"))


def index_of_a_flood(root: Path, arguments: argparse.Namespace) -> None:
    """Whether the index of a log that takes 100,000 lines a second loses or reorders any of them."""
    home = Home.open(root / "indexed")
    played = Played(home, "floods", 100_000)
    index, end = LogIndex(played.folder.log_file), time.monotonic() + 10
    while time.monotonic() < end:  # indexed while it grows
        index.update()
        time.sleep(0.02)
    played.stop()
    while index.update():
        pass
    lines = [line for line in index.read(0, index.count) if " of a log that scrolls" in line]
    wrong = sum(int(line[14:23]) != at for at, line in enumerate(lines))
    print(row(f"lines of {len(lines)} lost or reordered in the index of that log", [wrong], 0, "lines"))


def memory(root: Path, arguments: argparse.Namespace) -> None:
    """The end of a long log on the screen, and memory once it is indexed."""
    home = Home.open(root / "long")
    folder = make_session(home, "long")
    make_record(folder, status="stopped", step=10, reason="stopped")
    write_log(folder.log_file, arguments.log_mb)
    with PtyApp(home.root, 120, 36) as ui:
        ui.see("stopped", 60)
        began = time.monotonic()
        ui.type("l")
        ui.see(lambda text: LAST in text and "sessions" not in text, 120)
        took = time.monotonic() - began
        ui.see(lambda text: "%" not in text.splitlines()[0], 300)  # the share that is indexed is not said any more
        resident = psutil.Process(ui.process.pid).memory_info().rss / 1e6
        ui.type("&")
        ui.see("only", 10)
        ui.type("last|none\r")
        ui.see(", searching", 30)
        time.sleep(1)
        together = resident_of_all(ui.process.pid)
    print(row(f"end of a log of {arguments.log_mb} MB shown after", [took]))
    print(row(f"memory with a log of {arguments.log_mb} MB open", [resident], 90, "MB"))
    print(row("memory while it is filtered, with the processes that scan it and read the GPUs", [together], None, "MB"))
    if arguments.toolong:
        program = f"import os, sys; os.execv({arguments.toolong!r}, ['tl', {str(folder.log_file)!r}])"
        with PtyApp(home.root, 120, 36, program=program) as ui:
            end = time.monotonic() + 120
            while b"very last" not in bytes(ui.received) and time.monotonic() < end:
                time.sleep(0.05)
            print(row("toolong, end of the same log shown after", [time.monotonic() - ui.began]))
            time.sleep(10)
            print(row("toolong, memory with it open", [psutil.Process(ui.process.pid).memory_info().rss / 1e6], None, "MB"))


def resident_of_all(pid: int) -> float:
    """MB of a process and of its children, each page of a shared library counted anew."""
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6


def scanned(path: Path, pattern: str) -> tuple[float, float]:
    """Seconds to the first match and to the end of a scan of the whole log, in the search's own process."""
    first: list[float] = []
    done, began = threading.Event(), time.monotonic()

    def found(one: LogSearch) -> None:
        if one.count() and not first:
            first.append(time.monotonic() - began)
        if one.is_over:
            done.set()

    search = LogSearch(path, pattern, 0, 0, found)
    assert done.wait(300)
    search.stop()
    return first[0], time.monotonic() - began


def filters(root: Path, arguments: argparse.Namespace) -> None:
    """A log of 1 GB filtered: first matches, the whole, and what keys take meanwhile."""
    home = Home.open(root / "filtered")
    folder = make_session(home, "filtered")
    make_record(folder, status="stopped", step=10, reason="stopped")
    write_log(folder.log_file, 1000)
    path = folder.log_file
    for pattern, limit in (("very last", 3), ("step 015999", 3), (r"step 01599\d", 12), (r"last \w+$", 12), ("last|none", 12)):
        runs = [scanned(path, pattern) for _ in range(3)]
        print(row(f"filter 1 GB for {pattern!r}, all of it", [run[1] for run in runs], limit))
        print(row(f"filter 1 GB for {pattern!r}, first matches", [run[0] for run in runs], 0.2))
    with PtyApp(home.root, 120, 36) as ui:
        ui.see("stopped", 60)
        ui.type("l")
        ui.see(lambda text: LAST in text and "sessions" not in text, 60)
        time.sleep(4)
        ui.type("&")
        ui.see("only", 10)
        ui.type("00[1-9]|none\r")
        ui.see(lambda text: ", searching" in text and "step 00" in text.splitlines()[1], 30)
        values = []
        while ", searching" in ui.glass.text:  # `w` would not do: on lines that fit it changes the heading alone
            values += scrolled(ui, 10)
        assert values, "the search was over before a key was pressed"
        print(row(f"key to screen while it filters, longest of {len(values)}", [max(values)], 60, "ms"))


def left(home: Path, how: str) -> float:
    """Seconds from what ends the UI to its end."""
    with PtyApp(home, 120, 36) as ui:
        ui.see("sessions", 60)
        time.sleep(1)
        began = time.perf_counter()
        if how == "a terminal that closes":
            ui.close_master()
        else:
            ui.process.send_signal(signal.Signals[how])
        ui.process.wait(60)
        return time.perf_counter() - began


def exits(root: Path, arguments: argparse.Namespace) -> None:
    """How long the UI takes to be gone once it is told, with a session that trains in view."""
    home = Home.open(root / "left")
    played = Played(home, "trains", 20)
    for how in ("SIGTERM", "SIGHUP", "a terminal that closes"):
        print(row(f"gone after {how}", [left(home.root, how) for _ in range(arguments.runs)], 0.5))
    played.stop()


PARTS = {
    "paint": paint,
    "bytes": bytes_and_share,
    "keys": keys,
    "index": index_of_a_flood,
    "memory": memory,
    "filter": filters,
    "exit": exits,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--log-mb", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--toolong", default=shutil.which("tl") or "")
    parser.add_argument("--nvitop", default=shutil.which("nvitop") or "")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only knows {', '.join(PARTS)}; not {', '.join(sorted(unknown))}")
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[part](Path(folder), arguments)


if __name__ == "__main__":
    main()
