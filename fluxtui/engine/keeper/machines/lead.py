"""Node 0's side of a session on several machines: calls the others, waits for them, judges all ranks, says how it ended.

The session's own keeper has one of these where `hardware.nodes` is above 1. It alone writes the session's record.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import msgspec

from fluxtui.engine.keeper import waiting
from fluxtui.engine.keeper.attend import Attended
from fluxtui.engine.keeper.classify import RankExit, Verdict, classify, culprit
from fluxtui.engine.keeper.clock import wall
from fluxtui.engine.keeper.duties import Duties
from fluxtui.engine.keeper.guard import RankGuard
from fluxtui.engine.keeper.machines import group_guard
from fluxtui.engine.keeper.machines.group_guard import GroupJudgement
from fluxtui.engine.keeper.machines.messages import LOOK, Call, NodeFolder, NodeRecord, Signs, call_file, nodes_of, read_node
from fluxtui.engine.keeper.machines.network import free_port, own_address, split_rendezvous
from fluxtui.engine.keeper.machines.peers import News
from fluxtui.engine.keeper.spawn import Place
from fluxtui.engine.keeper.termination import How
from fluxtui.engine.wire import TrainerExit, TrainJob
from fluxtui.persist.errors import StorageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import make_folder

BEAT = 1.0  # seconds between two writes of the call
_WELL = (TrainerExit.DONE, TrainerExit.STOPPED)


@dataclass(slots=True)
class Lead:
    """The other machines of one session, over all its attempts."""

    duties: Duties
    _call: Call
    _written: float = 0.0
    _looked: float = 0.0
    _signs: dict[int, Signs] = field(default_factory=dict)
    _records: dict[int, NodeRecord] = field(default_factory=dict)  # of the present attempt
    _lost: dict[int, str] = field(default_factory=dict)  # node -> why
    _hosts: dict[int, str] = field(default_factory=dict)  # by node, as last heard in any attempt
    decides: bool = True
    are_others: bool = True

    @staticmethod
    def open(duties: Duties) -> Lead:
        """Raises `StorageError`, `UsageError` (a rendezvous that is none)."""
        split_rendezvous(duties.spec.hardware.rendezvous or "localhost")
        make_folder(nodes_of(duties.folder))
        record = duties.journal.record
        call = Call(attempt=record.attempt, run_id=record.run_id, host=socket.gethostname(), beat_at=wall(), stage="wait")
        lead = Lead(duties, call)
        lead._say(call)
        duties.each_turn.append(lead.beat)
        return lead

    @property
    def nodes(self) -> range:
        """The other machines' numbers."""
        return range(1, self.duties.spec.hardware.nodes)

    @property
    def world_size(self) -> int:
        return self._call.world_size

    def beat(self) -> None:
        """A sign of life."""
        now = self.duties.loop.watch.now()
        if now - self._written >= BEAT:
            self._written = now
            self._call = msgspec.structs.replace(self._call, beat_at=wall())
            with suppress(StorageError):
                toml.write_beat(call_file(self.duties.folder), self._call)

    def gather(self, job: TrainJob, ranks: int) -> Verdict | None:
        """Wait until every node has its devices; a verdict where one does not come, or the user withdraws the session."""
        began = self.duties.loop.watch.now()
        lost, self._lost, self._records = self._lost, {}, {}
        self._signs = {node: self._listening(node, began) for node in self.nodes}
        self._say(Call(attempt=job.attempt, run_id=job.run_id, host=self._call.host, beat_at=wall(), stage="gather", job=job))
        while len(self._records) < len(self.nodes):
            _ready, requests = self.duties.turn()
            withdrawn = waiting.obey(self.duties, requests)
            if withdrawn is not None:
                return withdrawn
            now = self.duties.loop.watch.now()
            self._look(now)
            for node, record in self._records.items():
                if record.end:  # it could not even begin, and says why
                    why = f"{self._name(node)}: {record.reason}"
                    return Verdict("failed", why, "fix that, then fluxtui resume {name}", marker="FAILED")
            absent = [node for node in self.nodes if node not in self._records]
            self.duties.journal.update(waiting_for=f"node {_list(absent)} to join" if absent else "")
            for node in absent:
                silent = self.duties.spec.guard.node if node in lost else 0.0
                if words := self._signs[node].lost_words(now, silent):
                    return _not_joined([node], f"{self._name(node)}: {words}")
            limit = self.duties.spec.guard.start
            if absent and limit and now - began > limit:
                return _not_joined(absent, f"node {_list(absent)} did not join within {limit:.0f} s")
        self._begin(job, ranks)
        return None

    def place(self) -> Place:
        return Place(0, 0, self._call.world_size, self._call.address, self._call.port)

    def close(self) -> None:
        """No other attempt follows: the other machines' keepers leave."""
        with suppress(StorageError):
            self._say(msgspec.structs.replace(self._call, stage="over", how="kill", why="the session's keeper has left"))

    # --- as the attendance sees it ---

    def listen(self, now: float, exits: Sequence[RankExit]) -> News | None:
        if not self._look(now):
            return None
        if self._lost:
            return News("peer", "; ".join(f"{self._name(node)}: {why}" for node, why in self._lost.items()))
        left = self._exits()
        if left and not all(one.code == TrainerExit.STOPPED for one in left):
            return News("peer", f"rank {left[0].rank} has left", all(one.code in _WELL for one in left))
        leaving = [node for node, record in self._records.items() if record.status == "stopping" or record.exits or record.end]
        return News("stop", self._name(leaving[0])) if leaving else None

    def judge(self, guards: Mapping[int, RankGuard], now: float) -> GroupJudgement:
        here = group_guard.judge(dict(guards), now)
        spoken, silent = dict(here.by_rank), dict(here.silent)
        where = dict.fromkeys(guards, f" (node 0, {self._call.host})")
        said: list[str] = []
        for node, record in self._records.items():
            for wait in record.waits:
                (spoken if wait.has_spoken else silent)[wait.rank] = wait.judgement()
                where[wait.rank] = f" ({self._name(node)})"
            if record.unreachable:
                said.append(f"{self._name(node)} cannot reach {self._call.host} over the network: {record.unreachable}")
        return GroupJudgement(spoken, silent, where, "; ".join(said))

    def end(self, how: How, patience: float, now: float) -> None:
        if self._call.stage == "train" or (how == "kill" and self._call.how != "kill"):
            with suppress(StorageError):
                why = "node 0 ends all ranks"
                self._say(msgspec.structs.replace(self._call, stage="end", how=how, patience=patience, why=why))

    def are_gone(self, now: float) -> bool:
        self._look(now)
        return not self._left_behind()

    def waiting_words(self, now: float) -> str:
        return ", ".join(f"waiting for the end of {self._name(node)}" for node in self._left_behind())

    def verdict(self, attended: Attended) -> Verdict:
        """What the end of all ranks means: the words are those of the machine whose rank explains it."""
        own = classify(attended.exits, attended.evidence)
        if own.end != "failed" or attended.evidence.because in ("hung", "stop", "kill"):
            return own
        if self._lost:
            node, why = next(iter(self._lost.items()))
            remedy = f"look at that machine, fluxtui join {{name}} --node {node} there, then fluxtui resume {{name}}"
            return Verdict("failed", f"{self._name(node)}: {why}", remedy, True, "CRASHED", own.culprit)
        worst = culprit([*attended.exits, *self._exits()])
        for node, record in self._records.items():
            if worst.rank in {one.rank for one in record.exits}:
                reason = record.reason.removeprefix(f"rank {worst.rank}: ")
                seen = f"the log of that machine is nodes/{node}.log; {record.remedy}"
                named = f"rank {worst.rank} ({self._name(node)}): {reason}"
                return Verdict("failed", named, seen, record.is_retried, own.marker, worst)
        reason = own.reason.removeprefix(f"rank {worst.rank}: ")
        return replace(own, reason=f"rank {worst.rank} (node 0, {self._call.host}): {reason}")

    # --- inside ---

    def _begin(self, job: TrainJob, ranks: int) -> None:
        """Everyone is there: the ranks are numbered, node by node, and the place to meet is named."""
        firsts = [0]
        for node in self.nodes:
            firsts.append(firsts[-1] + (ranks if node == 1 else self._records[node - 1].slots))
        world_size = firsts[-1] + self._records[self.nodes[-1]].slots
        host, port = split_rendezvous(self.duties.spec.hardware.rendezvous or own_address())
        self._say(
            msgspec.structs.replace(
                self._call, stage="train", address=host, port=port or free_port(), firsts=firsts, world_size=world_size
            )
        )
        hosts = [self._call.host, *(self._records[node].host for node in self.nodes)]
        self.duties.journal.update(nodes=hosts)
        self.duties.log.line(f"{world_size} ranks on {', '.join(hosts)} meet at {host} port {self._call.port}")

    def _say(self, call: Call) -> None:
        self._call, self._written = msgspec.structs.replace(call, beat_at=wall()), self.duties.loop.watch.now()
        toml.write(call_file(self.duties.folder), self._call)

    def _look(self, now: float) -> bool:
        """Read what the others wrote, at most every half second; False where it was not due."""
        if now - self._looked < LOOK:
            return False
        self._looked = now
        limit = self.duties.spec.guard.node
        for node in self.nodes:
            record = read_node(self.duties.folder, node, self._call.run_id)
            if record is not None:
                self._records[node], self._hosts[node] = record, record.host
                self._signs[node].heard(now, record.beat_at)
            known = self._records.get(node)
            if known is None or known.end or node in self._lost:
                continue
            if words := self._signs[node].lost_words(now, limit):
                self._lost[node] = words
        return True

    def _exits(self) -> list[RankExit]:
        return [left.exit() for record in self._records.values() for left in record.exits]

    def _left_behind(self) -> list[int]:
        return [node for node, record in self._records.items() if not record.end and node not in self._lost]

    def _name(self, node: int) -> str:
        return f"node {node}, {self._hosts[node]}" if node in self._hosts else f"node {node}"

    def _listening(self, node: int, now: float) -> Signs:
        """For a new attempt. Where its lock was seen held in one before, a free one says at once that it will not come."""
        before = self._signs.get(node)
        return Signs(NodeFolder(self.duties.folder.path, node).lock_file, now, saw_lock=before is not None and before.saw_lock)


def _list(nodes: Sequence[int]) -> str:
    return ", ".join(map(str, nodes))


def _not_joined(absent: Sequence[int], why: str) -> Verdict:
    remedy = f"fluxtui join {{name}} --node {absent[0]} on that machine, then fluxtui resume {{name}} here"
    return Verdict("failed", why, remedy, marker="FAILED")
