"""What the keepers of one session on several machines say to each other: files in `nodes/`, each with one writer.

Node 0's keeper, the session's own, writes `call.toml`: the attempt that it gathers for, the job, where ranks meet, and when to
end. Each other node's keeper writes `K.toml`, its record of that attempt with what the guards of its ranks see. A sign of life is
a file that changes, on the reader's own watch: clocks of two machines are never compared. Where the file system shows locks
between machines, a lock that was seen held and is free says it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from fluxtui.engine.keeper.classify import RankExit
from fluxtui.engine.keeper.guard import Judgement, Kind, Limits
from fluxtui.engine.keeper.termination import How
from fluxtui.engine.wire import TrainJob
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files import toml
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import Record

LOOK = 0.5  # seconds between two looks at the other machines' files
Stage = Literal["wait", "gather", "train", "end", "over"]


@dataclass(frozen=True, slots=True)
class NodeFolder(SessionFolder):
    """A session's folder as the keeper of another node sees it: what that keeper writes is its own, in `nodes/`."""

    node: int

    @property
    def attempts(self) -> Path:
        return nodes_of(self)

    @property
    def control(self) -> Path:
        return nodes_of(self) / f"{self.node}.control"  # never there: what fronts ask is node 0's to hear

    @property
    def lock_file(self) -> Path:
        return nodes_of(self) / f"{self.node}.lock"

    @property
    def log_file(self) -> Path:
        return nodes_of(self) / f"{self.node}.log"

    @property
    def reserve_file(self) -> Path:
        return nodes_of(self) / f".{self.node}.reserve"

    def attempt_file(self, attempt: int) -> Path:
        """One file for all attempts: of an earlier one nobody asks any more."""
        return nodes_of(self) / f"{self.node}.toml"


def nodes_of(folder: SessionFolder) -> Path:
    return folder.path / "nodes"


def call_file(folder: SessionFolder) -> Path:
    return nodes_of(folder) / "call.toml"


class Call(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`nodes/call.toml`."""

    attempt: int
    run_id: str                      # of the attempt; answers to another are of the past
    host: str                        # of node 0
    beat_at: datetime                # changes with every write, and only that is looked at
    stage: Stage
    how: How = "peer"                # from `end` on: how the ranks are to be ended
    patience: float = 0.0            # seconds that they get to leave by themselves
    why: str = ""
    address: str = ""                # from `train` on: where all ranks meet
    port: int = 0
    firsts: list[int] = field(default_factory=list)  # the first rank of each node
    world_size: int = 0
    job: TrainJob | None = None


class RankWait(Struct, frozen=True, omit_defaults=True):
    """What a node's guard thinks of one of its ranks: `guard.Judgement`, for node 0 to judge all of them together."""

    rank: int
    kind: Kind
    waited: float
    amber: float
    kill: float | None = None
    busy: bool = False
    ticked: float | None = None
    has_spoken: bool = False

    @staticmethod
    def of(rank: int, judged: Judgement, has_spoken: bool) -> RankWait:
        row = judged.limits
        ticked = None if judged.ticked is None else round(judged.ticked, 1)
        return RankWait(rank, judged.kind, round(judged.waited, 1), row.amber, row.kill, judged.busy, ticked, has_spoken)

    def judgement(self) -> Judgement:
        return Judgement(self.kind, self.waited, Limits(self.amber, self.kill), self.busy, self.ticked)


class RankLeft(Struct, frozen=True, omit_defaults=True):
    """`classify.RankExit` on disk."""

    rank: int
    code: int | None = None
    signal: int | None = None
    ended_by_keeper: bool = False

    @staticmethod
    def of(left: RankExit) -> RankLeft:
        return RankLeft(left.rank, left.code, left.signal, left.ended_by_keeper)

    def exit(self) -> RankExit:
        return RankExit(self.rank, self.code, self.signal, self.ended_by_keeper)


class NodeRecord(Record, frozen=True, omit_defaults=True, kw_only=True):
    """`nodes/K.toml`: the record that a node's keeper keeps of its part in an attempt."""

    node: int
    slots: int                                                  # ranks that it will start
    waits: list[RankWait] = field(default_factory=list)
    exits: list[RankLeft] = field(default_factory=list)
    unreachable: str = ""                                       # why node 0 cannot be reached over the network
    end: Literal["", "done", "stopped", "failed"] = ""          # how its part ended: no process of it is left
    is_retried: bool = False                                    # what its verdict says of another attempt
    culprit: RankLeft | None = None


@dataclass(slots=True)
class Signs:
    """The signs of life of one other keeper."""

    lock_file: Path
    heard_at: float
    _last: datetime | None = None
    saw_lock: bool = False  # locks are seen between these machines

    def heard(self, now: float, beat_at: datetime | None) -> bool:
        """Take in its newest beat; whether it is another than the last one."""
        is_new = beat_at != self._last
        if is_new:
            self.heard_at, self._last = now, beat_at
        return is_new

    def lost_words(self, now: float, limit: float) -> str:
        """Why it counts as gone; empty while it lives. `limit` in seconds; 0: only its lock tells."""
        try:
            is_held = Lock.held(self.lock_file)
        except FluxTUIError:
            is_held = True  # a disk that does not answer says nothing
        self.saw_lock = self.saw_lock or is_held
        if self.saw_lock and not is_held:
            return "its keeper is gone"
        if limit and now - self.heard_at > limit:
            return f"no sign of life from its keeper for {now - self.heard_at:.0f} s"
        return ""


def read_call(folder: SessionFolder) -> Call | None:
    """The newest call; None where there is none that can be read."""
    try:
        return toml.read(call_file(folder), Call)
    except FluxTUIError:
        return None


def read_node(folder: SessionFolder, node: int, run_id: str) -> NodeRecord | None:
    """The record of a node for one attempt; None where it has not answered to that one."""
    try:
        record = toml.read(NodeFolder(folder.path, node).attempt_file(0), NodeRecord)
    except FluxTUIError:
        return None
    return record if record.run_id == run_id and record.node == node else None
