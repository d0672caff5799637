"""A session that trains at ten steps a second, as its files show it: `python bench/_played.py HOME NAME LOG_LINES_A_SECOND`.

A process of its own, so that what it takes is not counted as the UI's. Ends when its input does.
"""

from __future__ import annotations

import select
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from fluxtui.persist.files import toml  # noqa: E402
from fluxtui.persist.files.lock import Lock  # noqa: E402
from fluxtui.persist.home import Home, SessionFolder  # noqa: E402
from fluxtui.persist.sessions.record import Phase  # noqa: E402
from tests.ui.fabricate import make_log, make_metrics, make_record, make_session  # noqa: E402

TICK = 0.1  # seconds a step


class Played:
    """The process, from the outside."""

    def __init__(self, home: Home, name: str, log_lines_a_second: float) -> None:
        self.folder = home.session(name)
        command = [sys.executable, __file__, str(home.root), name, str(log_lines_a_second)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdout is not None
        self._child.stdout.readline()

    def stop(self) -> None:
        self._child.communicate(timeout=30)


def begin(home: Home, name: str) -> SessionFolder:
    """A running session of 500 steps."""
    folder = home.session(name)
    if not folder.exists():
        make_session(home, name)
    running = {"status": "running", "phase": Phase.TRAIN, "steps": 100_000, "epochs": 40, "epoch": 1, "step": 500}
    make_record(folder, **running, loss=0.1, step_seconds=TICK)
    make_metrics(folder, 500)
    if not folder.log_file.exists():
        make_log(folder, 500)
    return folder


def play(folder: SessionFolder, lines_a_second: float) -> None:
    """A step each tick, a beat every ten; the lines of the log are numbered."""
    record = toml.read(folder.attempt_file(1), type(make_record(folder, status="running", phase=Phase.TRAIN)))
    record = msgspec.structs.replace(record, steps=100_000, epochs=40, epoch=1, step=500, loss=0.1, step_seconds=TICK)
    step, logged, began = 500, 0, time.monotonic()
    with folder.log_file.open("a") as log:
        while not select.select([sys.stdin], [], [], TICK)[0]:
            step += 1
            make_metrics(folder, step, first=step, seed=step)
            due = int((time.monotonic() - began) * lines_a_second) - logged
            log.write("".join([f"12:00:00 line {at:09d} of a log that scrolls\n" for at in range(logged, logged + due)]))
            log.flush()
            logged += due
            if step % 10 == 1:
                loss = 0.05 + (step % 7) / 1000
                toml.write_beat(
                    folder.attempt_file(1), msgspec.structs.replace(record, step=step, loss=loss, beat_at=datetime.now(UTC))
                )


def main() -> None:
    folder = begin(Home.open(Path(sys.argv[1])), sys.argv[2])
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    print("plays", flush=True)
    play(folder, float(sys.argv[3]))
    lock.release()


if __name__ == "__main__":
    main()
