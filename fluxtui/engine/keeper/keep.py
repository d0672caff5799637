"""The life of a keeper, to be read top to bottom.

open:     lock, what stands in the way, the first record, one line to the front
attempt:  queued -> devices -> starting -> the trainer, watched -> how it ended -> the proof -> the verdict on disk
again:    a hang or crash ends the attempt; the next one is queued by the same keeper, with a pause
end:      devices given back, the user's `on_end` command
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass, field, replace

from fluxtui.engine import life, wire
from fluxtui.engine.keeper import attempt_end, proof, startup
from fluxtui.engine.keeper.attend import Attendance, Attended
from fluxtui.engine.keeper.classify import RankExit, Verdict, classify
from fluxtui.engine.keeper.duties import Duties
from fluxtui.engine.keeper.gauges import Gauges
from fluxtui.engine.keeper.installed import Installed, installed, settled
from fluxtui.engine.keeper.journal import Journal, SessionGoneError
from fluxtui.engine.keeper.loop import TICK
from fluxtui.engine.keeper.machines.lead import Lead
from fluxtui.engine.keeper.machines.peers import Alone
from fluxtui.engine.keeper.queue import Lease, Queue
from fluxtui.engine.keeper.spawn import CannotStartError, spawn_prover, spawn_trainer
from fluxtui.engine.keeper.waiting import Pause, wait
from fluxtui.persist.errors import ExitCode, FluxTUIError, StorageError
from fluxtui.persist.sessions.record import Phase, Proof, Record

PROVERS = 3  # that are asked at most, where the package is being replaced meanwhile
MEMORY_SECONDS = 30.0  # how long the GPU's memory may take to come back after its processes are gone


def main(argv: list[str]) -> int:
    """`python -m fluxtui.engine keep`: exit code 0 where the session was kept to its end, whatever that was."""
    arguments = startup.parse(argv)
    startup.own_run_id(argv)
    try:
        opened = startup.open_session(arguments)
    except FluxTUIError as error:
        return startup.refuse(str(error), error.exit_code)
    except SessionGoneError as error:
        return startup.refuse(str(error), ExitCode.FAILED)
    except OSError as error:
        return startup.refuse(f"the keeper cannot start: {error.strerror or error}", ExitCode.FAILED)
    duties = opened.duties
    startup.accept(duties.journal.record.attempt, duties.log)
    keeper = Keeper(duties, arguments, opened.maker)
    try:
        life.adopt_orphans()
        return keeper.keep()
    except SessionGoneError as error:
        print(f"[keeper] {error}", file=sys.stderr)
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001  (the outer edge of this process: recorded, and the trainer ended with us)
        traceback.print_exc()
        verdict = Verdict("failed", f"the keeper itself failed: {type(error).__name__}: {error}", marker="CRASHED")
        attempt_end.write_verdict(duties, verdict, keeper.give_back)
        attempt_end.run_on_end(duties)
        return ExitCode.FAILED


@dataclass(slots=True)
class Keeper:
    """One session from its start to its last verdict."""

    duties: Duties
    arguments: startup.Arguments
    maker: Record | None  # an attempt whose product only waits for its proof
    gauges: Gauges = field(default_factory=Gauges)
    lease: Lease | None = None
    code: Installed = field(default_factory=installed)  # what this keeper is made of
    lead: Lead | None = None  # of the other machines, where hardware.nodes has any

    @property
    def journal(self) -> Journal:
        return self.duties.journal

    def keep(self) -> int:
        """Attempt after attempt, until one has the last word."""
        pause = Pause()
        while True:
            before = self.journal.record.checkpoint
            verdict = self.attempt(pause)
            attempt_end.see_checkpoint(self.duties)
            again = attempt_end.retry_after(self.duties, verdict, before)
            attempt_end.write_verdict(self.duties, attempt_end.final_words(self.duties, verdict, again), self.give_back)
            if again is None or self.duties.is_called_off:
                break
            self.prepare_retry(verdict)
            try:
                pause = attempt_end.begin_retry(self.duties, again, [] if self.lease is None else self.lease.uuids)
            except StorageError as error:
                self.duties.log.line(f"no retry: its record cannot be written: {error}")
                break
        self.give_back()
        if self.lead is not None:
            self.lead.close()
        attempt_end.run_on_end(self.duties)
        return ExitCode.DONE

    def attempt(self, pause: Pause) -> Verdict:
        """One attempt, from queued to its verdict. Nothing but a proof makes it `done`."""
        try:
            early = self.queue_up(pause)
            if early is not None:
                return early
            record = self.journal.record
            world_size = self.maker.world_size if self.maker is not None else self.world_size()
            self.journal.transition("starting", reason="", waiting_for="", started_at=self.journal.today(), world_size=world_size)
            if self.maker is not None:
                self.journal.transition("running", phase=Phase.PROVE, step=self.maker.step, steps=self.maker.steps)
                return self.prove(self.maker)
            verdict = self.train()
            return self.prove(record) if verdict.end == "done" else verdict
        except CannotStartError as error:
            return Verdict("failed", str(error), "fix that, then fluxtui resume {name}", marker="FAILED")

    def queue_up(self, pause: Pause) -> Verdict | None:
        """Wait for the pause after a failed attempt, then for the devices; a verdict where it leaves the queue instead."""
        queue = Queue(self.duties.home, self.duties.folder.name, self.duties.spec.hardware, self.gauges)
        try:
            if self.lead is None and self.duties.spec.hardware.nodes > 1:
                self.lead = Lead.open(self.duties)
            found = wait(self.duties, pause, queue, self.lease)
            if isinstance(found, Lease):
                self.lease, self.gauges.uuids = found, found.uuids
                self.journal.update(gpus=found.uuids)
                if self.lead is not None and self.maker is None:
                    return self.lead.gather(self.job(), self.local_ranks())
        except FluxTUIError as error:
            return Verdict("failed", str(error), "fix that, then fluxtui resume {name}", marker="FAILED")
        return found if isinstance(found, Verdict) else None

    def local_ranks(self) -> int:
        """Ranks of this machine: one a GPU, else as many as the spec has on the CPU."""
        assert self.lease is not None
        return len(self.lease.uuids) or self.duties.spec.hardware.ranks

    def world_size(self) -> int:
        """Ranks of all machines."""
        return self.local_ranks() if self.lead is None else self.lead.world_size

    def job(self) -> wire.TrainJob:
        """What the trainers of this attempt are told."""
        assert self.lease is not None
        record, spec = self.journal.record, self.duties.spec
        return wire.TrainJob(
            home=str(self.duties.home.root),
            session=str(self.duties.folder.path),
            attempt=record.attempt,
            nonce=record.nonce,
            run_id=record.run_id,
            spec=spec,
            recipe_sha256=record.recipe_sha256,
            threads=record.threads,
            resume=self.arguments.resume,
            start_from=self.arguments.start_from,
            model_commit=record.model_commit,
            accept_changes=self.arguments.accept_changes,
            devices=self.lease.uuids,
            card_memory=self.gauges.card_memory(),
        )

    def train(self) -> Verdict:
        """Spawn every rank, attend them to their end, and say what that end means."""
        place = self.lead.place() if self.lead is not None else None
        with spawn_trainer(self.job(), self.local_ranks(), self.duties.log.for_processes(), place) as group:
            attended = Attendance(self.duties, group, self.gauges, self.lead or Alone()).run()
        self.await_memory(group.tree.ranks)
        return classify(attended.exits, attended.evidence) if self.lead is None else self.lead.verdict(attended)

    def prove(self, maker: Record) -> Verdict:
        """The keeper's own look at the product, then the proving process; only both together are `done`."""
        journal = self.journal
        journal.sync(phase=Phase.PROVE, inner="", amber="")
        steps = self.duties.spec.train.steps or journal.record.steps
        claim = proof.check_claim(self.duties.folder, maker, steps, self.duties.breathe)
        if claim.problem or claim.result is None:
            return unproven(claim.problem)
        journal.update(step=claim.result.step)  # the last line of a trainer may have been dropped, or its keeper killed before it
        asked = 0
        while True:
            before = installed()
            answer, attended = self.ask_prover(maker)
            if attended.evidence.because == "kill":
                return classify(attended.exits, attended.evidence)
            asked += 1
            if asked == PROVERS or not self.was_replaced(before, answer):
                break
        left = attended.exits[0]
        found = proof.by_one_code(proof.judge_answer(answer, left.code, claim.result), self.code, before, installed())
        if found.ok:
            journal.update(proof=found, output=str(self.duties.folder.product))
            if before != self.code:
                self.duties.log.line(found.checks[-1])
            return Verdict("done", culprit=RankExit(0, code=0))
        if answer is None:
            ended = classify(attended.exits, attended.evidence)
            return unproven(f"{found.what} ({ended.reason or left.words()})")
        journal.update(proof=found)
        return unproven(found.what)

    def ask_prover(self, maker: Record) -> tuple[Proof | None, Attended]:
        """The proving process, from its start to its end: its answer, None where it left none, and how it ended."""
        assert self.lease is not None
        record = self.journal.record
        arguments = ["--home", str(self.duties.home.root), "--session", self.duties.folder.name, "--attempt", str(maker.attempt)]
        with spawn_prover(arguments, record.run_id, self.lease.uuids, record.threads, self.duties.log.for_processes()) as group:
            attended = Attendance(self.duties, group, self.gauges).run()
            answer = proof.read_answer(group.answer_fd)
        self.await_memory(group.tree.ranks)
        return answer, attended

    def was_replaced(self, before: Installed, answer: Proof | None) -> bool:
        """Whether the prover was started from a package that somebody was replacing; then not before that is done."""
        now = installed()
        if now == before and (answer is not None or now == self.code):
            return False
        self.duties.log.line("FluxTUI was being replaced by another version while the product was proven; it is proven once more")
        settled(self.duties.breathe, self.duties.loop.watch.now)
        return True

    def await_memory(self, pids: set[int]) -> None:
        """The GPU is not given on before its memory is back, or the driver has had its time."""
        began = self.duties.loop.watch.now()
        while self.gauges.holds_memory(pids):
            if self.duties.loop.watch.now() - began > MEMORY_SECONDS:
                self.duties.log.line(f"the GPU still shows memory of ended processes after {MEMORY_SECONDS:.0f} s")
                return
            self.duties.breathe(TICK)

    def prepare_retry(self, verdict: Verdict) -> None:
        """The next attempt goes on from the newest checkpoint; a GPU that was lost is not held on to."""
        self.maker = None
        self.arguments = replace(self.arguments, resume="auto")
        if verdict.culprit is not None and verdict.culprit.code == wire.TrainerExit.GPU_LOST:
            self.give_back()

    def give_back(self) -> None:
        if self.lease is not None:
            self.lease.release()
            self.lease, self.gauges.uuids = None, []


def unproven(what: str) -> Verdict:
    """Exit 0 counts for nothing by itself."""
    remedy = "fluxtui resume {name} goes on from the last checkpoint"
    return Verdict("failed", f"exit 0 without proof: {what}", remedy, marker="FAILED", culprit=RankExit(0, code=0))
