"""A fault at any system call of a keeper's whole life (faults 2 and 3): from its opening to the end.

The keeper alone is traced, from its first instruction on. CI strikes a sample spread over that life. `make soak` strikes every
call that changes something, the N-th of each name for every N, until a life has no N-th one: so none is left out.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Generator
from itertools import count, cycle

import pytest
from keeper_lab import Keeper, Lab, Session, fast, until

from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.record import TERMINAL

pytestmark = [pytest.mark.root, pytest.mark.timeout(7200)]
SOAK = bool(os.environ.get("FLUXTUI_SOAK"))
DISK = ("write", "fsync", "rename", "mkdir", "unlink", "ftruncate")
CHANGING = (
    *DISK,
    "pipe2",
    "memfd_create",
    "vfork",
    "clone",
    "clone3",
    "pidfd_open",
    "pidfd_send_signal",
    "kill",
    "prctl",
    "fcntl",
)
SPREAD = (0.02, 0.12, 0.35, 0.55, 0.8, 0.97)  # of a life: before its record, queued, trained, retried, proven, over
Point = tuple[str, int]


class Bench:
    """One session a life; all of them in one home."""

    def __init__(self, lab: Lab, strace: str) -> None:
        self.lab, self.strace, self.lives = lab, strace, count(1)

    def life(self, *expressions: str) -> tuple[Session, Keeper, list[str]]:
        """A keeper under strace to its end: four steps, a crash at the third, a retry, a proof. What was traced."""
        one = self.lab.session(f"s{next(self.lives)}", steps=4, every=2, guard=fast(retry_delay=0.05))
        self.lab.plan({"attempt": 1, "at": 3, "do": "exit", "code": 9})
        trace = self.lab.path / "trace"
        options = [word for expression in expressions for word in ("-e", expression)]
        wrap = [self.strace, "-qq", "-o", str(trace), *options]
        keeper = one.start(may_fail=True, wrap=wrap, FLUXTUI_RUN_ID=f"keeper-of-{one.folder.name}")
        keeper.wait(60)
        return one, keeper, [line for line in trace.read_text(errors="replace").splitlines() if re.match(r"\w+\(", line)]

    def survey(self, calls: tuple[str, ...]) -> list[Point]:
        """Every such call of an undisturbed life, in order, with its number among those of its name."""
        one, _, traced = self.life(f"trace=execve,{','.join(calls)}")
        lines = [line for line in traced if not line.startswith("execve(")]
        assert len(traced) == len(lines) + 1  # of the keeper alone: what it starts is not in it
        assert [record.status for record in one.records()] == ["failed", "completed"]
        seen: Counter[str] = Counter()
        points = []
        for line in lines:
            name = line.partition("(")[0]
            seen[name] += 1
            points.append((name, seen[name]))
        assert {"write", "fsync", "rename"} <= seen.keys()
        return points

    def goes_on(self, one: Session, where: str) -> None:
        """Nobody is left, nothing is torn, and a keeper that is left alone brings the session to its proven end. Then it goes."""
        until(lambda: not one.is_kept() and not one.strays(), 10, f"nobody left after {where}")
        one.check()
        self.lab.plan()
        if not one.attempts or one.record().status != "completed":
            assert overview.look(self.lab.home, one.folder.name).state in ("new", "lost", "failed"), where
            one.start(FLUXTUI_RUN_ID="another").wait()
            one.check()
        assert one.record().status == "completed", f"after {where}: {one.record()}"
        shutil.rmtree(one.folder.path)  # a keeper that waits looks at each session: another life would have a call more


@pytest.fixture
def bench(lab: Lab, needs) -> Bench:
    return Bench(lab, needs("strace"))


def spread(points: list[Point]) -> list[Point]:
    return [points[int(part * (len(points) - 1))] for part in SPREAD]


def every(points: list[Point]) -> Generator[Point, bool, None]:
    """Each number of each name; sent whether it struck, it goes on until a life had no such call."""
    for name in dict.fromkeys(name for name, _ in points):
        number = 1
        while (yield name, number):
            number += 1


def strikes(points: list[Point], strike) -> int:
    """How many points struck. In CI a sample of them, where a point of a moment that is not always there may miss."""
    if not SOAK:
        struck = sum(strike(point) for point in spread(points))
        assert struck >= len(SPREAD) - 1
        return struck
    struck, sweep = 0, every(points)
    point: Point | None = next(sweep)
    while point is not None:
        hit = strike(point)
        struck += hit
        point = following(sweep, hit)
    assert struck >= len(points) * 0.9
    return struck


def following(sweep: Generator[Point, bool, None], hit: bool) -> Point | None:
    try:
        return sweep.send(hit)
    except StopIteration:
        return None


def test_2_killed_at_any_of_its_system_calls_it_leaves_nobody_and_loses_nothing(bench: Bench, record_property):
    def strike(point: Point) -> bool:
        call, number = point
        one, keeper, lines = bench.life(f"trace={call}", f"inject={call}:signal=KILL:when={number}")
        is_struck = keeper.process.returncode == -9
        assert is_struck == (len(lines) >= number), (point, lines[-1:])
        if not is_struck:
            assert one.record().status == "completed"
        bench.goes_on(one, f"SIGKILL at {call} {number}")
        return is_struck

    record_property("struck", strikes(bench.survey(CHANGING), strike))


@pytest.mark.parametrize("errors", [("ENOSPC",), ("EIO",)] if SOAK else [("ENOSPC", "EIO")], ids="-".join)
def test_3_a_disk_that_fails_at_any_call_of_the_keeper_is_never_a_false_word_and_loses_nothing(
    bench: Bench, errors: tuple[str, ...], record_property
):
    turn = cycle(errors)

    def strike(point: Point) -> bool:
        (call, number), error = point, next(turn)
        one, keeper, lines = bench.life(f"trace={call}", f"inject={call}:error={error}:when={number}")
        is_struck = any("(INJECTED)" in line for line in lines)
        if keeper.answer.get("ok"):
            assert one.record().status in TERMINAL, f"{error} at {call} {number}: {one.record()}"
        elif keeper.answer:
            assert keeper.answer["error"]
            assert not one.attempts
        bench.goes_on(one, f"{error} at {call} {number}")
        return is_struck

    record_property("struck", strikes(bench.survey(DISK), strike))


def test_every_number_of_every_name_is_swept_until_there_is_none():
    calls, struck = {"write": 3, "rename": 1}, []  # one write more than the survey saw
    sweep = every([("write", 1), ("rename", 1), ("write", 2)])
    point = next(sweep)
    while point is not None:
        name, number = point
        struck += [point] if number <= calls[name] else []
        point = following(sweep, number <= calls[name])
    assert struck == [("write", 1), ("write", 2), ("write", 3), ("rename", 1)]
