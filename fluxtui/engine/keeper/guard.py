"""When is a trainer slow, and when is it hung? Observations in, verdict out: no clock, no process and no file in here.

Progress decides. What a process says of itself ("alive", a thread's tick) only explains, and GPU utilisation is never asked.
The floors come from `[guard]` of the spec; the limits grow with what is seen and never shrink below the floor; a floor of
0 means never kill. Times are seconds of the keeper's watch (`clock.Watch`), which stands still while the machine does.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from fluxtui.engine.wire import ProgressLine
from fluxtui.persist.sessions.record import Phase
from fluxtui.persist.settings.spec import GuardSpec

Kind = Literal[
    "start",
    "download",
    "load",
    "encode",
    "cache",
    "batch",
    "first_steps",
    "step",
    "checkpoint",
    "validate",
    "sample",
    "export",
    "prove",
]

FIRST_STEPS = 5  # steps of a process that may take long: kernels are chosen, caches are cold
LOAD_AT_MOST = 3600.0  # seconds: how long a load may go without progress, however busy it is
STOP_AT_MOST = 600.0  # seconds a stop may take, unless bytes of its checkpoint move
BUSY_CPU = 0.01  # of a core: more than a thread that ticks, less than what works on a machine that starves it
BUSY_BYTES = 64 * 1024  # read between two looks


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table in docs/guards.md."""

    floor: str  # the field of GuardSpec that holds the floor of the kill limit
    amber: float  # seconds: the floor of the amber limit
    amber_times: float = 0.0  # ... times what was seen
    kill_times: float = 0.0
    seen: Literal["p95", "max"] = "p95"


RULES: dict[Kind, Rule] = {
    "start": Rule("start", 30),
    "download": Rule("download", 60),
    "load": Rule("load", 60),
    "encode": Rule("encode", 60, 10, 30),
    "cache": Rule("encode", 60, 10, 30),
    "batch": Rule("batch", 30, 10, 30),
    "first_steps": Rule("first_steps", 300),
    "step": Rule("step", 30, 5, 20),
    "checkpoint": Rule("checkpoint", 60, 5, 10, "max"),
    "validate": Rule("sample", 60, 5, 10, "max"),
    "sample": Rule("sample", 60, 5, 10, "max"),
    "export": Rule("checkpoint", 60, 5, 10, "max"),
    "prove": Rule("prove", 60, 5, 10, "max"),
}

_WORDS: dict[Kind, str] = {
    "start": "start", "batch": "data (no batch from the data loader)", "first_steps": "train (first steps)", "step": "train",
}  # fmt: skip


def words(kind: Kind) -> str:
    """The kind as a person reads it in a reason: "hung in WORDS"."""
    return _WORDS.get(kind, kind)


class Spans:
    """The last 512 lengths of one kind of wait: their 95th percentile, and the longest ever."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """One more wait that ended well."""
        if len(self._recent) == 512:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        self.longest = max(self.longest, seconds)

    def p95(self) -> float:
        """0 where nothing was seen yet."""
        return self._sorted[math.ceil(0.95 * len(self._sorted)) - 1] if self._sorted else 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds without progress after which a wait is shown amber, and is ended; `kill` is None where it never is."""

    amber: float
    kill: float | None


def limits(kind: Kind, floors: GuardSpec, spans: Spans) -> Limits:
    """The limits of one kind of wait, from its floor and what was seen of it."""
    rule = RULES[kind]
    seen = spans.p95() if rule.seen == "p95" else spans.longest
    floor = float(getattr(floors, rule.floor))
    kill = max(floor, rule.kill_times * seen) if floor > 0 else None
    amber = max(rule.amber, rule.amber_times * seen)
    if kill is not None:
        amber = min(amber, kill / 2)  # a floor below the table's amber: amber still comes first
    return Limits(amber, kill)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the guard thinks of one rank at one moment."""

    kind: Kind
    waited: float  # seconds since its last progress
    limits: Limits
    busy: bool = False  # a load that reads bytes or burns CPU: not hung, within LOAD_AT_MOST
    ticked: float | None = None  # seconds since its thread last ticked; None: it never did

    @property
    def is_amber(self) -> bool:
        return self.waited > self.limits.amber

    @property
    def is_over(self) -> bool:
        """Without progress for longer than its limit, busy or not."""
        return self.limits.kill is not None and self.waited > self.limits.kill

    @property
    def is_hung(self) -> bool:
        if self.limits.kill is None or not self.is_over:
            return False
        return not (self.busy and self.waited <= max(LOAD_AT_MOST, self.limits.kill))

    def amber_words(self) -> str:
        """For the record: `step for 41 s (limit 300 s)`."""
        limit = "never ended" if self.limits.kill is None else f"limit {self.limits.kill:.0f} s"
        return f"{words(self.kind)} for {self.waited:.0f} s ({limit})"


@dataclass(slots=True)
class Activity:
    """CPU seconds and bytes read of a rank: what extends a load."""

    cpu: float = 0.0
    read: int = 0
    at: float = 0.0
    busy_at: float = -math.inf

    def seen(self, now: float, cpu: float, read: int) -> None:
        """Counters since the process began; looked at about once a second."""
        span = now - self.at
        if span <= 0:
            return
        if cpu - self.cpu >= BUSY_CPU * span or read - self.read >= BUSY_BYTES:
            self.busy_at = now
        self.cpu, self.read, self.at = cpu, read, now


@dataclass(slots=True)
class RankGuard:
    """The guard of one rank of a trainer, or of the prover: fed by its lines, asked by the keeper's tick."""

    floors: GuardSpec
    since: float  # of the last progress
    phase: Phase | None = None
    has_spoken: bool = False
    steps_here: int = 0  # optimizer steps done by this process
    ticked_at: float | None = None
    activity: Activity = field(default_factory=Activity)
    spans: dict[Kind, Spans] = field(default_factory=dict)
    longest_checkpoint: float = 0.0  # seconds, from its first line to the next phase
    _phase_since: float = 0.0
    _waits_for_batch: bool = False
    _last: tuple[object, ...] = ()
    _step: int | None = None
    _first: list[float] = field(default_factory=list)  # lengths of the first steps

    @property
    def kind(self) -> Kind:
        """Which row of the table the process is in now."""
        if not self.has_spoken or self.phase is None or self.phase is Phase.PREFLIGHT:
            return "start"
        if self.phase is not Phase.TRAIN:
            kind: Kind = self.phase.value  # type: ignore[assignment]  # the other phases are rows of the same name
            return kind
        if self._waits_for_batch:
            return "batch"
        return "first_steps" if self.steps_here < FIRST_STEPS else "step"

    @property
    def longest_step(self) -> float:
        """Seconds, the first few left out where there are others; 0 before the first."""
        return self._spans("step").longest or max(self._first, default=0.0)

    def heard(self, now: float, line: ProgressLine) -> bool:
        """Take in a line; True where it is progress and not only a sign of life."""
        self.ticked_at = now
        if line.alive:
            return False
        if not self._is_news(line):
            return False
        before = self.kind
        if self.has_spoken and before not in ("start", "first_steps"):
            self._spans(before).add(now - self.since)
        waited, done = now - self.since, self.steps_here
        self._enter(now, line)
        if before == "first_steps" and self.steps_here > done:
            self._first.append(waited)
            if self.steps_here >= FIRST_STEPS:  # the shortest of them has no compiling in it: the next is held against that
                self._spans("step").add(min(self._first))
        self.has_spoken = True
        self.since = now
        return True

    def judge(self, now: float) -> Judgement:
        """The state of this rank at `now`."""
        kind = self.kind
        row = limits(kind, self.floors, self._spans(kind))
        quiet = min(60.0, max(3.0, (row.kill or 300.0) / 5))
        busy = kind == "load" and now - self.activity.busy_at <= quiet
        ticked = None if self.ticked_at is None else now - self.ticked_at
        return Judgement(kind, now - self.since, row, busy, ticked)

    def _spans(self, kind: Kind) -> Spans:
        return self.spans.setdefault(kind, Spans())

    def _is_news(self, line: ProgressLine) -> bool:
        """A line that says the same again is none: a loop that repeats itself is as hung as one that is silent."""
        phase = self.phase if line.phase is None else line.phase
        step = self._step if line.step is None else line.step
        said = (phase, step, line.item, line.waiting, line.checkpoint)
        if self.has_spoken and said == self._last:
            return False
        self._last = said
        return True

    def _enter(self, now: float, line: ProgressLine) -> None:
        if line.phase is not None and line.phase is not self.phase:
            if self.phase is Phase.CHECKPOINT:
                self.longest_checkpoint = max(self.longest_checkpoint, now - self._phase_since)
            self.phase, self._phase_since = line.phase, now
        if line.step is not None:
            if self._step is not None and line.step > self._step:
                self.steps_here += line.step - self._step
            self._step = line.step
        if line.checkpoint_seconds is not None:  # written behind the loop: the phase alone does not say how long it takes
            self.longest_checkpoint = max(self.longest_checkpoint, line.checkpoint_seconds)
            self._spans("checkpoint").add(line.checkpoint_seconds)
        self._waits_for_batch = line.waiting == "batch"


@dataclass(slots=True)
class StopGuard:
    """How long a stop may take: finish the step, commit a checkpoint, leave."""

    asked_at: float
    limit: float
    _bytes: int = 0
    _moved_at: float = -math.inf

    @staticmethod
    def asked(now: float, floors: GuardSpec, longest_step: float, longest_checkpoint: float) -> StopGuard:
        """clamp(floor, 3 × longest step + 3 × longest checkpoint, 600 s)."""
        wanted = 3 * longest_step + 3 * longest_checkpoint
        return StopGuard(now, min(max(floors.stop, wanted), max(floors.stop, STOP_AT_MOST)))

    def checkpoint_bytes(self, now: float, count: int) -> None:
        """Bytes of unfinished checkpoints on disk: while they grow, the stop is given time."""
        if count > self._bytes:
            self._moved_at = now
        self._bytes = count

    def is_over(self, now: float) -> bool:
        return now - self.asked_at > self.limit and now - self._moved_at > min(15.0, self.limit / 2)
