"""How the terminal UI behaves: first paint, bytes sent, processor time, keys, long logs; beside a bare Textual app.

    python bench/ui.py [--seconds N] [--log-mb N]

A real UI on a real pty. The session that trains is played by this script: ten steps a second into real files.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil
from _clock import row

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from fluxtui.persist import toml  # noqa: E402
from fluxtui.persist.home import Home, SessionFolder  # noqa: E402
from fluxtui.persist.lock import Lock  # noqa: E402
from fluxtui.persist.record import Phase, Record  # noqa: E402
from tests.ui.fabricate import make_log, make_metrics, make_record, make_session  # noqa: E402
from tests.ui.glass import PtyApp  # noqa: E402

BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("bare")
Bare().run()
"""


class Played:
    """A session that trains at ten steps a second, as its files show it; its log grows where asked for."""

    def __init__(self, home: Home, name: str, log_lines_a_second: float) -> None:
        self.folder = make_session(home, name)
        make_record(
            self.folder,
            status="running",
            phase=Phase.TRAIN,
            steps=100_000,
            epochs=40,
            epoch=1,
            step=500,
            loss=0.1,
            step_seconds=0.1,
        )
        make_metrics(self.folder, 500)
        make_log(self.folder, 500)
        lock = Lock.take(self.folder.lock_file)
        assert lock is not None
        self._lock, self._rate = lock, log_lines_a_second
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._play, args=(self.folder,), daemon=True)
        self._thread.start()

    def _play(self, folder: SessionFolder) -> None:
        path = folder.attempt_file(1)
        record = toml.read(path, Record)
        step, logged, began = 500, 0, time.monotonic()
        with folder.log_file.open("a") as log:
            while not self._is_over.wait(0.1):
                step += 1
                make_metrics(folder, step, first=step, seed=step)
                due = int((time.monotonic() - began) * self._rate) - logged
                log.writelines(
                    f"12:00:00 step {step} loss 0.0{step % 997:03d} line {logged + at} of a log that scrolls\n"
                    for at in range(due)
                )
                log.flush()
                logged += due
                if step % 50 == 0:
                    loss = 0.05 + (step % 7) / 1000
                    toml.write_beat(path, msgspec.structs.replace(record, step=step, loss=loss, beat_at=datetime.now(UTC)))

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._lock.release()


def first_paint(home: Home, runs: int) -> list[float]:
    found = []
    for _ in range(runs):
        with PtyApp(home.root, 120, 36) as ui:
            ui.see("many-0000", 60)
            found.append(time.monotonic() - ui.began)
    return found


def bare_paint(runs: int) -> list[float]:
    found = []
    for _ in range(runs):
        with PtyApp(Path("/"), 120, 36, program=BARE) as ui:
            ui.see("bare", 60)
            found.append(time.monotonic() - ui.began)
    return found


def watched(home: Home, columns: int, rows: int, seconds: float) -> tuple[float, float]:
    """Bytes a second, and share of a core in per cent."""
    with PtyApp(home.root, columns, rows) as ui:
        ui.see("sessions", 60)
        time.sleep(4)
        sent, used, began = len(ui.received), ui.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        return (len(ui.received) - sent) / took, 100 * (ui.cpu_seconds() - used) / took


def key_to_screen(home: Home, presses: int) -> list[float]:
    """Milliseconds from a key to the changed screen, while the log floods."""
    found = []
    with PtyApp(home.root, 120, 36) as ui:
        ui.see("sessions", 60)
        time.sleep(2)
        for number in range(presses):
            order = ("by name", "by state", "by progress", "by loss", "")
            wanted = order[number % 5]
            began = time.perf_counter()
            ui.type("o")
            while (wanted not in ui.glass.text) if wanted else any(text in ui.glass.text for text in order[:4]):
                if time.perf_counter() - began > 5:
                    break
            found.append(1000 * (time.perf_counter() - began))
            time.sleep(0.05)
    return found


def long_log(home: Home, folder: SessionFolder, megabytes: int) -> tuple[float, float]:
    """Seconds until the end of a long log is shown, and the UI's memory (MB) with it open and indexed."""
    block = b"".join(b"12:00:00 step %06d  loss 0.0412  0.072 s/step  some more words\n" % number for number in range(16_000))
    with folder.log_file.open("wb") as log:
        for _ in range(megabytes * 1_000_000 // len(block)):
            log.write(block)
        log.write(b"the very last line\n")
    with PtyApp(home.root, 120, 36) as ui:
        began = time.monotonic()
        ui.see("the very last line", 120)
        took = time.monotonic() - began
        ui.type("l")
        time.sleep(3 + megabytes / 300)
        return took, psutil.Process(ui.process.pid).memory_info().rss / 1e6


def filtered(folder: SessionFolder, pattern: str) -> list[float]:
    """Seconds to scan the whole log for a pattern, in the search's own process."""
    from fluxtui.screens.log_search import LogSearch

    done = threading.Event()
    began = time.monotonic()
    search = LogSearch(folder.log_file, pattern, 0, 0, lambda one: done.set() if one.is_over else None)
    done.wait(300)
    search.stop()
    return [time.monotonic() - began]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--log-mb", type=int, default=200)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        many = Home.open(root / "many")
        for number in range(1000):
            make_session(many, f"many-{number:04d}")
        print(row("bare Textual app, first paint", bare_paint(arguments.runs)))
        print(row("first paint with 1000 sessions", first_paint(many, arguments.runs), 0.6))
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
        flood = Home.open(root / "flood")
        played = Played(flood, "floods", 100_000)
        values = sorted(key_to_screen(flood, 60))
        played.stop()
        print(row("key to screen, p95, log of 100,000 lines a second", [values[int(0.95 * len(values))]], 60, "ms"))
        print(row("key to screen, median", [statistics.median(values)], None, "ms"))
        took, memory = long_log(flood, played.folder, arguments.log_mb)
        print(row(f"end of a log of {arguments.log_mb} MB shown after", [took]))
        print(row(f"memory with a log of {arguments.log_mb} MB open", [memory], 90, "MB"))
        for pattern in ("very last", r"last \w+$", "last|none"):
            print(row(f"filter {arguments.log_mb} MB for {pattern!r}", filtered(played.folder, pattern)))


if __name__ == "__main__":
    main()
