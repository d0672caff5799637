"""Anything in any order: start, stop, kill, resume, crashes, two fronts, damaged files. What is shown is always the truth.

A real keeper and a stand-in trainer that commits real checkpoints. A watcher reads the records all the time: between two
looks at an attempt lies a way of allowed transitions, and what is terminal stays as it is. After each deed the derived
state is held against lock, processes and bytes. Few examples here; make soak draws many.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from keeper_lab import Keeper, Lab, fast, until

from fluxtui.persist import process
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import DamagedError, FluxTUIError
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.record import ACTIVE, TERMINAL, TRANSITIONS, Record

SOAK = bool(os.environ.get("FLUXTUI_SOAK"))
STEPS = 60
ALIVE = {"queued", "starting", "running", "stopping", "stalled", "suspended", "storage", "silent"}
CRASHES = [
    {"do": "segfault"}, {"do": "exit", "code": 76}, {"do": "exit", "code": 81}, {"do": "exit", "code": 0}, {"do": "sigstop"},
    {"do": "signal", "signal": "SIGKILL"}, {"do": "raise"},
]  # fmt: skip


def reachable(status: str) -> set[str]:
    """Every status that allowed transitions lead to, itself included."""
    found, ends = {status}, [status]
    while ends:
        new = TRANSITIONS.get(ends.pop(), frozenset()) - found
        found |= new
        ends += new
    return found


class Watcher(threading.Thread):
    """Reads every record of the session all the time, and keeps what broke a rule."""

    def __init__(self, attempts: Path) -> None:
        super().__init__(daemon=True)
        self.attempts, self.is_over = attempts, threading.Event()
        self.last: dict[str, Record] = {}
        self.seen = 0
        self.broken: list[str] = []

    def run(self) -> None:
        while not self.is_over.wait(0.01):
            with suppress(FileNotFoundError):
                for path in self.attempts.glob("[0-9]*.toml"):
                    with suppress(FluxTUIError):  # a record that a rule has torn
                        self._look(path.name, toml.read(path, Record))

    def _look(self, name: str, record: Record) -> None:
        name = f"{name} of {record.session_id}"  # the name of a session that was removed may be given again
        before = self.last.get(name)
        if before is not None and before != record:
            if record.status not in reachable(before.status):
                self.broken.append(f"{name}: {before.status} -> {record.status}")
            if before.status in TERMINAL:
                self.broken.append(f"{name} was final ({before.status}) and was written again")
        elif before is None and record.status in TERMINAL - {"stopped", "failed"}:
            self.broken.append(f"{name} began as {record.status}")
        self.last[name] = record
        self.seen += 1


class AnySession(RuleBasedStateMachine):
    """One session and whatever can happen to it."""

    @initialize()
    def make(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="fluxtui-stateful-"))
        self.lab = Lab(self.path, Home.open(self.path / "home"))
        self.lab.plan(step_seconds=0.02)
        self.one = self.lab.session(steps=STEPS, guard=fast(step=2, batch=2, first_steps=3, max_auto_resumes=2))
        self.keepers: list[Keeper] = []
        self.newest = -1  # step of the newest checkpoint that must not be lost
        self.watcher = Watcher(self.one.folder.attempts)
        self.watcher.start()

    # --- what is asked ---

    def state(self) -> str:
        return overview.look(self.lab.home, "one").state

    def is_kept(self) -> bool:
        return self.one.is_kept()

    def record(self) -> Record | None:
        with suppress(FluxTUIError, IndexError):
            return self.one.record()
        return None

    def strays(self) -> list[int]:
        """Processes of any attempt that live while no keeper does; of torn records too, by what the watcher saw of them."""
        if self.is_kept():
            return []
        ids = {record.run_id for record in self.watcher.last.values()}
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in pids if process.run_id_of(pid) in ids and process.state_letter(pid) not in ("Z", None)]

    # --- deeds ---

    @rule(crash=st.one_of(st.none(), st.sampled_from(CRASHES)), at=st.integers(0, STEPS - 1), fronts=st.sampled_from([1, 1, 2]))
    def start(self, crash: dict[str, object] | None, at: int, fronts: int) -> None:
        """Start or resume, perhaps from two fronts at once; the trainer may be going to crash at a step."""
        attempt = (self.one.attempts or [0])[-1] + 1
        self.lab.plan(*([{"attempt": attempt, "at": at, **crash}] if crash else []), step_seconds=0.02)
        before = [keeper for keeper in self.keepers if keeper.process.poll() is None]
        resume = "auto" if self.one.attempts else ""
        begun: list[Keeper] = []
        threads = [
            threading.Thread(target=lambda: begun.append(self.one.start("--resume", resume, may_fail=True)))
            for _ in range(fronts)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        accepted = [keeper for keeper in begun if keeper.answer.get("ok")]
        assert len(accepted) <= 1, "two keepers hold one session"
        if accepted:
            until(
                lambda: all(keeper.process.poll() is not None for keeper in before), 5, "a second keeper was let in: the end of"
            )
        for keeper in begun:
            if keeper not in accepted:
                assert keeper.answer.get("error"), keeper.answer
        self.keepers += accepted

    @rule(verbs=st.lists(st.sampled_from(["stop", "kill", "checkpoint", "stop-after-epoch"]), min_size=1, max_size=2))
    def ask(self, verbs: list[str]) -> None:
        """One request or two at once; also where nobody is there to hear it."""
        if self.one.attempts:
            for verb in verbs:
                self.one.request(verb)

    @rule(ratio=st.floats(0, 1))
    def wait_for_a_step(self, ratio: float) -> None:
        """Until it is further by some steps, or over."""
        record = self.record()
        if self.is_kept() and record is not None:
            target = record.step + int(ratio * 25)
            until(
                lambda: not self.is_kept() or (now := self.record()) is None or now.step >= target or now.status in TERMINAL, 30
            )

    @rule()
    def wait_for_the_end(self) -> None:
        until(lambda: not self.is_kept(), 60, "the keeper does not come to an end")

    @rule()
    def kill_the_keeper(self) -> None:
        for keeper in self.keepers:
            if keeper.process.poll() is None:
                keeper.process.kill()
                keeper.wait()
        if not self.is_kept():
            until(lambda: not self.strays(), 3, "a process outlives its keeper")

    @rule(number=st.sampled_from([9, 11, 6, 19]))
    def signal_the_trainer(self, number: int) -> None:
        record = self.record()
        if record is not None and record.ranks and record.phase != "prove":
            process.send(record.ranks[0], number)

    @precondition(lambda self: not self.is_kept())
    @rule(cut=st.integers(0, 100))
    def damage_the_newest_checkpoint(self, cut: int) -> None:
        names = commit.committed(self.one.folder.checkpoints)
        if len(names) >= 2:
            file = self.one.folder.checkpoints / names[-1] / "state.bin"
            file.write_bytes(file.read_bytes()[: cut % 32])
            self.newest = commit.step_of(names[-2])

    @precondition(lambda self: not self.is_kept())
    @rule(cut=st.integers(0, 200))
    def tear_the_newest_record(self, cut: int) -> None:
        if self.one.attempts:
            path = self.one.folder.attempt_file(self.one.attempts[-1])
            path.write_bytes(path.read_bytes()[:cut])

    @precondition(lambda self: not self.is_kept())
    @rule(is_removed=st.booleans())
    def spoil_the_product(self, is_removed: bool) -> None:
        if self.one.folder.product.exists():
            if is_removed:
                self.one.folder.product.unlink()
            else:
                self.one.folder.product.write_bytes(self.one.folder.product.read_bytes()[:-1])

    # --- what holds after each ---

    @invariant()
    def what_is_shown_is_the_truth(self) -> None:
        if not hasattr(self, "one"):
            return
        kept, seen, kept_after = self.is_kept(), overview.look(self.lab.home, "one"), self.is_kept()
        if not self.one.attempts and not kept_after:
            assert seen.state == "new"
        if kept == kept_after and seen.state != "unreadable" and seen.record is not None:
            if not kept:
                assert seen.state not in ALIVE, f"{seen.state} is shown, and no keeper is there"
                assert seen.state == "lost" or seen.status not in ACTIVE
            elif seen.status in ACTIVE:
                assert seen.state in ALIVE, f"{seen.state} is shown of a live one"
        if seen.state == "completed":
            assert self.one.product_is_exact(), "completed, and its bytes are not those of an uninterrupted run"
        assert not self.watcher.broken, self.watcher.broken

    @invariant()
    def what_was_committed_is_there(self) -> None:
        if not hasattr(self, "one") or self.is_kept():
            return
        names = commit.committed(self.one.folder.checkpoints)
        sound = []
        for name in names:
            with suppress(DamagedError):
                commit.verify_checkpoint(self.one.folder.checkpoints / name)
                sound.append(commit.step_of(name))
        best = max(sound, default=-1)
        assert best >= self.newest, f"the checkpoint of step {self.newest} is lost: {names}"
        self.newest = best

    def teardown(self) -> None:
        """Whatever was done: one resume without faults completes it, exactly."""
        if not hasattr(self, "one"):
            return
        try:
            self.kill_the_keeper()
            until(lambda: not self.is_kept(), 10)
            self.lab.plan(step_seconds=0.0)
            if self.state() != "completed":
                keeper = self.one.start("--resume", "auto" if self.one.attempts else "")
                keeper.wait(60)
            assert self.one.record().status == "completed", self.one.record()
            assert self.one.product_is_exact()
            until(lambda: not self.strays(), 3)
            assert self.watcher.seen > 0
        finally:
            self.watcher.is_over.set()
            self.watcher.join(10)
            self.lab.close()
            shutil.rmtree(self.path, ignore_errors=True)
        assert not self.watcher.broken, self.watcher.broken


TestAnySession = AnySession.TestCase
TestAnySession.settings = settings(
    max_examples=60 if SOAK else 4,
    stateful_step_count=20 if SOAK else 12,
    deadline=None,
    derandomize=not SOAK,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # a shrunk example would take an hour of real processes
    suppress_health_check=list(HealthCheck),
)
