"""Sessions under random faults for a given time, and what was lost: `python bench/soak.py --seconds 600 --sessions 4`.

Real keepers, a stand-in trainer that commits real checkpoints through the real code and whose state is a hash chain, so
that one lost or repeated step changes the product's bytes. Each fault is drawn from a seeded generator: kills of keeper and
trainer, stops, hangs, and as root with strace a full disk and calls to the disk that fail. Exit code 1 where a promise is
broken: a false completion, a lost commit, different bytes, a stray process, a false alarm, a hang found late.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "keeper"))

import _disks
from keeper_lab import SLOW, Keeper, Lab, Session, fast, until

from fluxtui.persist import process
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.record import Record

STEPS, EVERY, STEP_SECONDS = 200, 10, 0.02
FLOORS = fast(step=3, batch=3, first_steps=4, max_auto_resumes=100)
SLACK = 1.1  # of the budget of a hang, and a tick of the keeper's loop with its look at the pipe
TICKS = 1.0  # seconds


@dataclass
class Figures:
    """What the closing note prints."""

    seconds: float = 0.0
    sessions_completed: int = 0
    attempts: int = 0
    kills: int = 0
    kills_of_keepers: int = 0
    kills_of_trainers: int = 0
    stops_and_kills_by_request: int = 0
    hangs: int = 0
    full_disks: int = 0
    disks_that_fail: int = 0
    failed_calls: int = 0
    resumes: int = 0
    false_completions: int = 0
    lost_commits: int = 0
    different_bytes: int = 0
    stray_processes: int = 0
    false_alarms: int = 0
    longest_detection_seconds: float = 0.0
    budget_seconds: float = 0.0
    late_detections: int = 0
    troubles: list[str] = field(default_factory=list)

    @property
    def broken(self) -> int:
        promises = (self.false_completions, self.lost_commits, self.different_bytes, self.stray_processes, self.false_alarms)
        return sum(promises) + self.late_detections + len(self.troubles)


class Soak:
    """One session at a time, under one random generator."""

    def __init__(self, folder: Path, seed: int, until_time: float, figures: Figures, guard: threading.Lock) -> None:
        self.random = random.Random(seed)
        self.folder, self.disk = folder, folder / "disk"
        self.disk.mkdir(parents=True)
        self.end, self.figures, self.guard = until_time, figures, guard
        self.hangs_here = 0
        self.faults = list(FAULTS)

    def count(self, **amounts: float) -> None:
        with self.guard:
            for name, amount in amounts.items():
                setattr(self.figures, name, getattr(self.figures, name) + amount)

    def run(self) -> None:
        try:
            with _disks.small_disk(self.disk) as is_small:
                self.faults += [Soak.full_disk] * is_small + [Soak.failing_disk] * _disks.can_inject()
                self.sessions()
        except Exception as error:  # noqa: BLE001  (the outer edge of a thread: whatever it is, it is told)
            with self.guard:
                self.figures.troubles.append(f"{type(error).__name__}: {str(error)[:300]}")

    def sessions(self) -> None:
        """One after the other until the time is up."""
        self.lab = Lab(self.folder, Home.open(self.disk / "home"))
        self.lab.plan(step_seconds=STEP_SECONDS)
        number = 0
        try:
            while time.monotonic() < self.end:
                number += 1
                self.one_session(self.lab.session(f"s{number}", steps=STEPS, every=EVERY, guard=FLOORS))
        finally:
            self.lab.close()

    def one_session(self, session: Session) -> None:
        """Faults until the time is up or the session is completed; then to its end without faults, and judged."""
        self.hangs_here, is_first = 0, True
        while True:
            keeper = session.start("--resume", "" if is_first else "auto")
            self.count(resumes=0 if is_first else 1)
            is_first = False
            before = commit.committed(session.folder.checkpoints)
            if time.monotonic() < self.end:
                before = self.disturb(session, keeper) or before
            else:
                keeper.wait(120)
            if keeper.process.poll() is not None:
                self.look(session, before)
                if session.record().status == "completed":
                    break
        self.judge(session)

    def disturb(self, session: Session, keeper: Keeper) -> list[str]:
        """Faults at random moments until this keeper is gone; the checkpoints that stood before the last one."""
        before: list[str] = []
        while keeper.process.poll() is None:
            self.pause(keeper, 2.5)
            if keeper.process.poll() is not None or time.monotonic() > self.end:
                break
            before = commit.committed(session.folder.checkpoints)
            self.random.choice(self.faults)(self, session, keeper)
        keeper.wait(120)
        return before

    def look(self, session: Session, before: list[str]) -> None:
        """After a keeper is gone: nothing of it lives, and what was committed is there or was superseded."""
        try:
            until(lambda: not session.strays(), 3)
        except AssertionError:
            self.count(stray_processes=len(session.strays()))
        now = commit.committed(session.folder.checkpoints)
        if before and (not now or now[-1] < before[-1]):
            self.count(lost_commits=1)
        for name in now:
            try:
                commit.verify_checkpoint(session.folder.checkpoints / name)
            except FluxTUIError:
                self.count(lost_commits=1)

    def judge(self, session: Session) -> None:
        record = session.record()
        self.count(sessions_completed=1, attempts=len(session.attempts))
        if record.proof is None or not record.proof.ok or record.step != STEPS:
            self.count(false_completions=1)
        if not session.product_is_exact():
            self.count(different_bytes=1)
        found = session.log().count("TRAINING STUCK DETECTED")
        self.count(false_alarms=max(0, found - self.hangs_here))

    # --- faults ---

    def kill_keeper(self, session: Session, keeper: Keeper) -> None:
        keeper.process.kill()
        keeper.wait(20)
        self.count(kills=1, kills_of_keepers=1)

    def kill_trainer(self, session: Session, keeper: Keeper) -> None:
        if _signal_trainer(session, self.random.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])):
            self.count(kills=1, kills_of_trainers=1)

    def request(self, session: Session, keeper: Keeper) -> None:
        session.request(self.random.choice(["stop", "kill"]))
        keeper.wait(60)
        self.count(stops_and_kills_by_request=1)

    def stop_trainer(self, session: Session, keeper: Keeper) -> None:
        """SIGSTOP, and how long until it is called hung. The limit is the step's floor, or what the steps seen made of it."""
        record = _newest(session)
        if record is None or (record.phase, record.status) != ("train", "running"):
            return
        if not _signal_trainer(session, signal.SIGSTOP):
            return
        began, seen = time.monotonic(), session.log().count("STUCK DETECTED")
        self.hangs_here += 1
        shown: list[float] = []

        def is_found() -> bool:
            shown.extend(_limit(session))
            return session.log().count("STUCK DETECTED") > seen or keeper.process.poll() is not None

        until(is_found, 60)
        took = time.monotonic() - began
        # the floors, or what the steps seen made of them, as the record says while the session is amber
        budget = max(FLOORS.first_steps, FLOORS.step, FLOORS.batch, FLOORS.checkpoint, *shown)
        with self.guard:
            self.figures.hangs += 1
            if took >= self.figures.longest_detection_seconds:
                self.figures.longest_detection_seconds, self.figures.budget_seconds = round(took, 2), budget
            self.figures.late_detections += took > budget * SLACK + TICKS

    def full_disk(self, session: Session, keeper: Keeper) -> None:
        """Not a byte fits for a while: what cannot be kept fails, and is said in the record once there is room."""
        with _disks.filled(self.disk):
            self.pause(keeper, 2.0)
        self.count(full_disks=1)

    def failing_disk(self, session: Session, keeper: Keeper) -> None:
        """Calls of the keeper or of its trainer fail for a while, from the first or one of the next."""
        ranks = [] if (record := _newest(session)) is None else record.ranks
        pid = self.random.choice([keeper.pid, *(rank.pid for rank in ranks)])
        error, first = self.random.choice(["ENOSPC", "EIO"]), self.random.randint(1, 6)
        failed = _disks.fail_calls(pid, error, first, self.folder / "strace", self.random.uniform(0.3, 2.0))
        self.count(failed_calls=failed, disks_that_fail=failed > 0)

    def pause(self, keeper: Keeper, longest: float) -> None:
        """Up to that many seconds, or until the keeper is gone."""
        moment = time.monotonic() + self.random.uniform(0.0, longest)
        until(lambda: keeper.process.poll() is not None or time.monotonic() > moment)


FAULTS: list[Callable[[Soak, Session, Keeper], None]] = [
    Soak.kill_keeper, Soak.kill_keeper, Soak.kill_keeper, Soak.kill_trainer, Soak.kill_trainer, Soak.kill_trainer,
    Soak.request, Soak.stop_trainer,
]  # fmt: skip


def _limit(session: Session) -> list[float]:
    """The limit in seconds that an amber record names."""
    record = _newest(session)
    return [] if record is None else [float(found) for found in re.findall(r"limit (\d+) s", record.amber)]


def _newest(session: Session) -> Record | None:
    """Its newest record; None where there is none that can be read."""
    try:
        return session.record()
    except (FluxTUIError, IndexError):
        return None


def _signal_trainer(session: Session, number: int) -> bool:
    record = _newest(session)
    return record is not None and bool(record.ranks) and record.phase != "prove" and process.send(record.ranks[0], number)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--sessions", type=int, default=4, help="at the same time, each in a home of its own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures, guard, began = Figures(), threading.Lock(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fluxtui-soak-") as folder:
        soaks = [
            Soak(Path(folder) / str(n), asked.seed * 1000 + n, began + asked.seconds, figures, guard)
            for n in range(asked.sessions)
        ]
        threads = [threading.Thread(target=soak.run) for soak in soaks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    figures.seconds = round(time.monotonic() - began, 1)
    if asked.json:
        print(json.dumps(asdict(figures)))
    else:
        print(f"seed {asked.seed}, {asked.sessions} sessions at a time, {os.cpu_count()} cores, times scaled by {SLOW:.1f}")
        for name, value in asdict(figures).items():
            print(f"  {name.replace('_', ' '):<32} {value}")
    return 1 if figures.broken else 0


if __name__ == "__main__":
    sys.exit(main())
