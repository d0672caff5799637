"""`python -m fluxtui.engine join`: the keeper of another machine than node 0, to be read top to bottom.

It starts, watches and ends the ranks of its machine as any keeper does, and writes nothing of the session but its own files in
`nodes/`. Node 0 says for which attempt, and when it is over; where node 0 gives no sign of life its ranks are ended at once.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fluxtui.engine import life
from fluxtui.engine.keeper import startup
from fluxtui.engine.keeper.attend import Attendance
from fluxtui.engine.keeper.classify import RankExit, Verdict, classify
from fluxtui.engine.keeper.duties import Duties
from fluxtui.engine.keeper.gauges import Gauges
from fluxtui.engine.keeper.guard import RankGuard
from fluxtui.engine.keeper.journal import Journal, SessionGoneError
from fluxtui.engine.keeper.loop import Loop
from fluxtui.engine.keeper.machines.group_guard import GroupJudgement
from fluxtui.engine.keeper.machines.messages import (
    LOOK,
    Call,
    NodeFolder,
    NodeRecord,
    RankLeft,
    RankWait,
    Signs,
    nodes_of,
    read_call,
)
from fluxtui.engine.keeper.machines.network import why_unreachable
from fluxtui.engine.keeper.machines.peers import News
from fluxtui.engine.keeper.machines.record import conclude, first_record
from fluxtui.engine.keeper.queue import Lease, Queue
from fluxtui.engine.keeper.session_log import Log
from fluxtui.engine.keeper.spawn import CannotStartError, Place, spawn_trainer
from fluxtui.engine.keeper.termination import How
from fluxtui.persist.errors import ExitCode, FluxTUIError, NotFoundError, RefusedError, StorageError, UsageError
from fluxtui.persist.files.durable import make_folder
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.record import TERMINAL
from fluxtui.persist.settings import recipe

_PROBE = 5.0  # seconds between two tries to reach node 0, while the ranks here stand still
_PROBE_SECONDS = 1.0  # that such a try may take
_STILL = 5.0  # seconds without progress


class LeadLostError(FluxTUIError):
    """Node 0 has left, or gives no sign of life."""


def main(argv: list[str]) -> int:
    """Exit code 0 where node 0 said that it is over."""
    words = _parse(argv)
    startup.own_run_id(argv, "join")
    try:
        follower = Follower.open(words.home, words.session, words.node)
    except FluxTUIError as error:
        return startup.refuse(str(error), error.exit_code)
    except OSError as error:
        return startup.refuse(f"the keeper cannot start: {error.strerror or error}", ExitCode.FAILED)
    startup.accept(words.node, follower.duties.log)
    try:
        life.adopt_orphans()
        return follower.follow()
    except (LeadLostError, SessionGoneError) as error:
        follower.duties.log.line(str(error))
        return ExitCode.FAILED
    except Exception:  # noqa: BLE001  (the outer edge of this process: recorded, and the ranks ended with us)
        traceback.print_exc()
        return ExitCode.FAILED


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fluxtui.engine join", description="Keep one more machine: docs/scale.md.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--node", type=int, required=True)
    return parser.parse_args(argv)


@dataclass(slots=True)
class Follower:
    """One machine's part in a session, attempt after attempt."""

    duties: Duties
    folder: NodeFolder
    signs: Signs  # of node 0
    call: Call | None = None
    gauges: Gauges = field(default_factory=Gauges)
    lease: Lease | None = None
    _looked: float = 0.0
    _probed: float = 0.0
    _published: tuple[RankExit, ...] = ()
    decides: bool = False
    are_others: bool = True

    @staticmethod
    def open(root: Path, name: str, node: int) -> Follower:
        """Take this node's lock. Raises `FluxTUIError`, in one sentence."""
        startup.must_have_descriptors()
        home = Home.open(root)
        session = home.session(name)
        if not session.exists():
            raise NotFoundError(f"there is no session {name} in {home.root}; all machines must see one home")
        spec = recipe.load_spec(session.spec_file)
        if node < 1:
            raise UsageError(f"--node is {node}; node 0 is where fluxtui start {name} runs, the others count from 1")
        folder = NodeFolder(session.path, node)
        make_folder(nodes_of(session))
        lock = Lock.take(folder.lock_file)
        if lock is None:
            raise RefusedError(f"node {node} of {name} has joined already; give this machine another number")
        try:
            log, loop = Log(folder.log_file), Loop()
        except OSError as error:
            raise StorageError.of(error, "open", folder.log_file) from error
        journal = Journal(folder, lock, log, loop.watch)
        duties = Duties(home, folder, spec, loop, log, journal)
        before = read_call(session)  # of a node 0 that may be long gone: only a newer one counts
        signs = Signs(session.lock_file, loop.watch.now(), None if before is None else before.beat_at)
        return Follower(duties, folder, signs)

    def follow(self) -> int:
        """Until node 0 says that it is over, or this machine is asked to leave."""
        served = ""
        try:
            while (call := self.await_call(served)) is not None:
                served = call.run_id
                self.serve(call)
        except LeadLostError as error:
            if self.duties.journal.has_begun and self.duties.journal.record.status not in TERMINAL:
                self._conclude(Verdict("failed", str(error)), [])
            raise
        finally:
            if self.lease is not None:
                self.lease.release()
        return ExitCode.DONE

    def await_call(self, served: str) -> Call | None:
        """The next attempt that is gathered for; None where none will come. Raises `LeadLostError`."""
        while not self.duties.loop.asked_by:
            self.duties.loop.turn()
            self.duties.journal.check_lock()
            call = self._hear_call()
            if call is not None and call.stage == "over":
                return None
            if call is not None and call.stage == "gather" and call.run_id != served:
                return call
        return None

    def serve(self, call: Call) -> None:
        """One attempt: devices, the word to begin, the ranks to their end, how that was."""
        assert call.job is not None
        spec = call.job.spec
        self.duties.spec, self._published = spec, ()
        if self.folder.node >= spec.hardware.nodes:
            raise LeadLostError(f"this session trains on {spec.hardware.nodes} machines: there is no node {self.folder.node}")
        self._begin(call, 0)
        if not self._take_devices(call):
            return
        assert self.lease is not None
        slots = len(self.lease.uuids) or spec.hardware.ranks
        self._begin(call, slots)
        begun = self._await_stage(call, "train")
        if begun is None:
            why = f"asked to leave by {by}" if (by := self.duties.loop.asked_by) else "the attempt was over before it began"
            return self._conclude(Verdict("stopped", why), [])
        job = msgspec.structs.replace(
            call.job,
            home=str(self.duties.home.root),
            session=str(self.folder.path),
            run_id=f"{call.run_id}.{self.folder.node}",  # what each keeper finds its own processes by, were it on one machine
            devices=self.lease.uuids,
            card_memory=self.gauges.card_memory(),  # of here; the ranks agree on the smallest of all machines
        )
        place = Place(self.folder.node, begun.firsts[self.folder.node], begun.world_size, begun.address, begun.port)
        self.duties.journal.transition("starting", started_at=self.duties.journal.today())
        try:
            with spawn_trainer(job, slots, self.duties.log.for_processes(), place) as group:
                attended = Attendance(self.duties, group, self.gauges, self).run()
        except CannotStartError as error:
            failed = RankExit(place.first, code=1)
            return self._conclude(Verdict("failed", str(error), "fix that, then fluxtui resume {name}", culprit=failed), [failed])
        self._conclude(classify(attended.exits, attended.evidence), attended.exits)

    # --- as the attendance sees it ---

    def listen(self, now: float, exits: Sequence[RankExit]) -> News | None:
        if tuple(exits) != self._published:
            self._published = tuple(exits)
            self.duties.journal.sync(exits=[RankLeft.of(one) for one in exits])
        if now - self._looked < LOOK:
            return None
        self._looked = now
        try:
            call = self._hear_call()
        except LeadLostError as error:
            return News("kill", str(error), patience=0.0)
        assert self.call is not None
        if call is None:
            return None
        if call.run_id != self.call.run_id:
            return News("kill", "node 0 is at another attempt", patience=0.0)
        if call.stage in ("end", "over"):
            return News(call.how, call.why, patience=call.patience)
        return None

    def judge(self, guards: Mapping[int, RankGuard], now: float) -> GroupJudgement:
        judged = {rank: guard.judge(now) for rank, guard in guards.items()}
        waits = [RankWait.of(rank, one, guards[rank].has_spoken) for rank, one in judged.items()]
        self.duties.journal.update(waits=waits, unreachable=self._network(min(one.waited for one in judged.values()), now))
        return GroupJudgement(judged)

    def end(self, how: How, patience: float, now: float) -> None:
        return  # node 0 hears of it by the exits

    def are_gone(self, now: float) -> bool:
        return True

    def waiting_words(self, now: float) -> str:
        return ""

    # --- inside ---

    def _take_devices(self, call: Call) -> bool:
        """This machine's own GPUs, held from one attempt to the next; False where the attempt is over before they are free."""
        assert call.job is not None
        queue = Queue(self.duties.home, self.folder.name, call.job.spec.hardware, self.gauges, takes_cpu=False)
        while self.lease is None:
            try:
                turn = queue.ask(self.duties.journal.record)
            except FluxTUIError as error:
                self._conclude(Verdict("failed", str(error)), [])
                return False
            self.lease = turn.lease
            if self.lease is None:
                self.duties.journal.update(waiting_for=turn.waiting_for)
                if self._is_past(call):
                    return False
        self.gauges.uuids = self.lease.uuids
        return True

    def _is_past(self, call: Call) -> bool:
        self.duties.turn()
        now = self._hear_call()
        is_other = now is not None and (now.run_id != call.run_id or now.stage not in ("gather", "train"))
        return is_other or bool(self.duties.loop.asked_by)

    def _await_stage(self, call: Call, stage: str) -> Call | None:
        while not self._is_past(call):
            if self.call is not None and self.call.stage == stage:
                return self.call
        return None

    def _hear_call(self) -> Call | None:
        """The newest call of a node 0 that was seen alive. Raises `LeadLostError` where it is not any more."""
        now = self.duties.loop.watch.now()
        found = read_call(self.folder)
        if found is not None and self.signs.heard(now, found.beat_at):
            self.call = found
        if self.call is not None and self.call.stage == "over":
            return self.call
        limit = self.duties.spec.guard.node if self.call is not None else self.duties.spec.guard.start
        if words := self.signs.lost_words(now, limit):
            if self.call is None:
                raise LeadLostError(f"node 0 did not begin: {words}; fluxtui start {self.folder.name} there, then join again")
            raise LeadLostError(f"node 0 ({self.call.host}): {words}")
        return self.call

    def _network(self, waited: float, now: float) -> str:
        """Why node 0 cannot be reached, looked at only while the ranks here stand still; as it was where it is not due."""
        record = self.duties.journal.record
        assert isinstance(record, NodeRecord)
        if waited < _STILL or self.call is None or not self.call.address:
            return ""
        if now - self._probed < _PROBE:
            return record.unreachable
        self._probed = now
        return why_unreachable(self.call.address, self.call.port, _PROBE_SECONDS)

    def _begin(self, call: Call, slots: int) -> None:
        gpus = self.lease.uuids if self.lease else []
        self.duties.journal.begin(first_record(call, self.folder.node, slots, gpus))

    def _conclude(self, verdict: Verdict, exits: Sequence[RankExit]) -> None:
        conclude(self.duties, self.call, verdict, exits)
