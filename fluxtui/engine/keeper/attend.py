"""A group of processes from its first line to its last: heard, judged, asked, ended, and how it left.

Serves the ranks of a trainer and the prover alike. It decides nothing about what an end means: that is `classify`'s.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from fluxtui.engine.keeper import evidence, guard
from fluxtui.engine.keeper.classify import Because, Evidence, RankExit
from fluxtui.engine.keeper.duties import Duties
from fluxtui.engine.keeper.gauges import Gauges
from fluxtui.engine.keeper.journal import SessionGoneError
from fluxtui.engine.keeper.machines.peers import Alone, Peers
from fluxtui.engine.keeper.progress import ProgressReader
from fluxtui.engine.keeper.spawn import Group
from fluxtui.engine.keeper.termination import How, Termination, exit_of
from fluxtui.engine.wire import RequestLine, TrainerExit
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import StorageError
from fluxtui.persist.sessions.record import Phase
from fluxtui.persist.sessions.requests import Request

_EARLY: frozenset[guard.Kind] = frozenset({"start", "download", "load", "encode", "cache"})  # nothing to commit yet
_BEFORE_A_CHECKPOINT: frozenset[guard.Kind] = frozenset({"sample", "validate"})  # a stop waits for them while they move
_LOOK = 1.0  # seconds between two looks at /proc and the checkpoints
_LINEAGE = 5.0  # seconds between two looks at who descends from the ranks


@dataclass(slots=True)
class Attended:
    """How a group left, and what was seen of it."""

    exits: list[RankExit]
    evidence: Evidence


@dataclass(slots=True)
class Attendance:
    """Watches one group until none of it is left."""

    duties: Duties
    group: Group
    gauges: Gauges
    peers: Peers = field(default_factory=Alone)  # the session's keepers on other machines
    progress: ProgressReader = field(init=False)
    _exits: list[RankExit] = field(default_factory=list)
    _gone: set[int] = field(default_factory=set)
    _ending: Termination | None = None
    _stop: guard.StopGuard | None = None
    _is_terminated: bool = False  # SIGTERM was sent to hurry a stop
    _because: Because = ""
    _hung: str = ""
    _memory: evidence.OutOfMemory = field(default_factory=evidence.OutOfMemory)
    _killed_for_memory: str = ""
    _peak: int = 0
    _next_look: float = 0.0
    _next_lineage: float = 0.0

    def __post_init__(self) -> None:
        self.progress = ProgressReader(self.duties, self.group)
        self._memory.look(self.group.tree.ranks, self.duties.loop.watch.now())

    def run(self) -> Attended:
        """Until every process is gone. Raises `SessionGoneError`, after having ended them, where the session's folder is."""
        self._name_processes()
        loop = self.duties.loop
        for fd in (self.group.progress_fd, *(rank.pidfd for rank in self.group.ranks)):
            loop.add(fd)
        if self.duties.stop_after_epoch and not self.is_prover:  # asked of the trainer before this one
            self.group.request(RequestLine(id=self.duties.stop_after_epoch, verb="stop-after-epoch"))
        try:
            self._attend()
        finally:
            for fd in (self.group.progress_fd, *(rank.pidfd for rank in self.group.ranks)):
                loop.drop(fd)
        self.progress.read()
        return Attended(self._exits, self._evidence())

    def _name_processes(self) -> None:
        """Into the record: whoever reads it can tell them from later processes of the same pids."""
        identities = [rank.identity for rank in self.group.ranks]
        if self.is_prover:
            self.duties.journal.update(prover=identities[0])
        else:
            self.duties.journal.update(ranks=identities)

    def _attend(self) -> None:
        gone_error: SessionGoneError | None = None
        while True:
            try:
                ready, requests = self.duties.turn()
            except SessionGoneError as error:
                ready, requests, gone_error = set(), [], error
                self._end_at_once()
            now = self.duties.loop.watch.now()
            if gone_error is None:
                self._hear(ready)
                self._obey(requests, now)
                self._look(now)
            self._note_exits()
            self._heed_peers(now)
            self._judge(now)
            if self._ending is not None:
                self.peers.end(self._ending.how, self._ending.grace, now)
                self._ending.tick(now, self._gone)
                if self._ending.is_over(self._gone) and self.peers.are_gone(now):
                    break
        if gone_error is not None:
            raise gone_error

    def _hear(self, ready: set[int]) -> None:
        if self.group.progress_fd in ready:
            self.progress.read()
            if not self.progress.is_open:
                self.duties.loop.drop(self.group.progress_fd)

    def _note_exits(self) -> None:
        for rank in self.group.ranks:
            if rank.pid in self._gone:
                continue
            left = exit_of(rank.pid)
            if left is None:
                continue
            code, number = left
            is_hurried = number == signal.SIGTERM and self._is_terminated
            by_keeper = is_hurried or (self._ending is not None and self._ending.sent(number))
            self._exits.append(RankExit(rank.rank, code, number, by_keeper))
            if not self._killed_for_memory and not by_keeper:  # asked now: what the kernel does later explains nothing
                self._killed_for_memory = self._memory.words(self.duties.loop.watch.now())
            self._gone.add(rank.pid)
            self.duties.loop.drop(rank.pidfd)
        if self._ending is None and self._gone:
            self._ending = self._end_the_rest()

    def _end_the_rest(self) -> Termination:
        """Ranks that should follow the one that left are given their time; strays are given none."""
        is_whole = len(self._gone) == len(self.group.ranks)
        is_well = self._exits[0].code in (TrainerExit.DONE, TrainerExit.STOPPED)
        how: How = "kill" if is_whole and not self.peers.are_others else "peer"
        return Termination(self.group, how, self._patience(is_well), self.duties.loop.watch.now())

    def _heed_peers(self, now: float) -> None:
        """Ranks on all machines end together: what another machine's keeper says of its own counts as if it were here."""
        news = self.peers.listen(now, self._exits)
        if news is None:
            return
        if news.how == "stop":
            if self._ending is None and self._because not in ("stop", "kill"):
                self._begin_stop(news.why, now)
        elif self._ending is None:
            self._because = self._because or "peer"
            self.duties.log.line(f"the ranks are ended: {news.why}")
            patience = news.patience if news.patience is not None else self._patience(news.is_well)
            self._ending = Termination(self.group, news.how, patience, now)
        elif news.how == "kill" and self._ending.how != "kill":
            self._end_at_once()

    def _patience(self, is_well: bool) -> float:
        floors = self.duties.spec.guard
        return floors.stop if is_well else min(floors.grace, 5.0)

    def _judge(self, now: float) -> None:
        if self._ending is not None:
            words = self._ending.still_there(now, self._gone) or self.peers.waiting_words(now)
            if words:
                self.duties.journal.update(amber=words)
            return
        judged = self.peers.judge(self.progress.guards, now)
        self.duties.journal.update(amber=judged.amber_words())
        if judged.is_hung and self.peers.decides:
            self._because, self._hung = self._because or "hung", judged.hung_words()
            self.duties.log.marker(f"TRAINING STUCK DETECTED - {judged.phase_words()}, {judged.last.waited:.0f} seconds")
        elif self._stop is not None and self._stop.is_over(now) and not self._draws(now):
            self.duties.log.line(f"the stop was asked for {now - self._stop.asked_at:.0f} s ago; the trainer is ended")
        else:
            return
        self._ending = Termination(self.group, "stall", self.duties.spec.guard.grace, now)

    def _draws(self, now: float) -> bool:
        """Whether a rank draws or validates, and moves: its checkpoint is still to come, and the steps since the last with it."""
        judged = [one.judge(now) for one in self.progress.guards.values()]
        return any(one.kind in _BEFORE_A_CHECKPOINT and not one.is_amber for one in judged)

    def _obey(self, requests: list[Request], now: float) -> None:
        journal = self.duties.journal
        if self.duties.loop.asked_by and self._because not in ("stop", "kill") and not self.is_prover:
            self._begin_stop(self.duties.loop.asked_by.lower(), now)
        for request in requests:
            if request.verb == "kill":
                journal.acknowledge(request.id, request.verb, "accepted")
                self._kill()
            elif request.verb == "priority":
                journal.acknowledge(request.id, request.verb, "dropped: it is not waiting any more")
            elif self.is_prover:
                journal.acknowledge(request.id, request.verb, "dropped: the training is over and its product is being proven")
            elif request.verb == "stop":
                is_ending = self._because in ("stop", "kill")
                journal.acknowledge(request.id, request.verb, "accepted: it is stopping already" if is_ending else "accepted")
                if not is_ending:
                    self._begin_stop(request.id, now)
            else:
                sent = self.group.request(RequestLine(id=request.id, verb=request.verb))
                if request.verb == "stop-after-epoch":
                    self.duties.stop_after_epoch = request.id
                    journal.update(stops_after_epoch=True)
                journal.acknowledge(request.id, request.verb, "accepted" if sent else "dropped: the trainer takes no requests")

    def _begin_stop(self, request_id: str, now: float) -> None:
        """Finish the step, commit, leave; before the first step there is nothing to commit, so it leaves at once."""
        guards = self.progress.guards.values()
        longest = max(one.longest_step for one in guards), max(one.longest_checkpoint for one in guards)
        self._stop = guard.StopGuard.asked(now, self.duties.spec.guard, *longest)
        is_sent = self.group.request(RequestLine(id=request_id, verb="stop"))
        is_early = self.progress.first.kind in _EARLY
        if is_early:
            self._stop.limit = self.duties.spec.guard.grace
        if is_early or not is_sent:
            self.group.signal_ranks(signal.SIGTERM)
            self._is_terminated = True
        self._because = "stop"
        if self.duties.journal.record.status in ("starting", "running"):
            self.duties.journal.transition("stopping", amber="")

    def _kill(self) -> None:
        self._because = "kill"
        self._end_at_once()
        if self.duties.journal.record.status in ("starting", "running"):
            self.duties.journal.transition("stopping", amber="")

    def _end_at_once(self) -> None:
        now = self.duties.loop.watch.now()
        self._ending = self._ending or Termination(self.group, "kill", 0.0, now)
        self._ending.escalate(now)

    def _look(self, now: float) -> None:
        """At what the processes use, and at what stands on disk: progress lines may have been dropped."""
        if now < self._next_look:
            return
        self._next_look = now + _LOOK
        for rank in self.group.ranks:
            if rank.pid not in self._gone:
                self._peak = max(self._peak, evidence.peak_memory(rank.pid))
                self.progress.guards[rank.rank].activity.seen(now, *evidence.activity(rank.pid))
        if self._stop is not None:
            self._stop.checkpoint_bytes(now, evidence.bytes_below(self.duties.folder.checkpoints))
        self.duties.journal.update(gpu_hint=self.gauges.hint(now))
        self._see_checkpoints()
        if now >= self._next_lineage:
            self._next_lineage = now + _LINEAGE
            self._memory.look(self.group.tree.ranks | {one.pid for one in self.group.tree.look()}, now)

    def _see_checkpoints(self) -> None:
        try:
            names = commit.committed(self.duties.folder.checkpoints)
        except StorageError:
            return
        if names:
            self.duties.journal.update(checkpoint=names[-1])

    @property
    def is_prover(self) -> bool:
        return self.group.what == "prover"

    def _evidence(self) -> Evidence:
        phase = self.duties.journal.record.phase
        self._memory.close()
        return Evidence(
            because=self._because,
            hung=self._hung,
            error=self.progress.error,
            remedy=self.progress.remedy,
            has_spoken=self.progress.first.has_spoken,
            last_log_line=self.duties.log.last_line(),
            out_of_memory=self._killed_for_memory,
            shared_memory_full=evidence.is_shared_memory_full(),
            peak_memory=self._peak,
            phase="" if phase is None else Phase(phase).value,
        )
