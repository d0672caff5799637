"""What is asked, told or lost between two processes of a session: requests at the wrong moment, devices, the count of retries."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from typing import ClassVar

import msgspec
import pytest
from keeper_lab import Lab, Session, fast, until

from fluxtui.engine.keeper import attempt_end, proof
from fluxtui.engine.keeper.attempt_end import Again
from fluxtui.engine.keeper.classify import RankExit, Verdict
from fluxtui.engine.keeper.duties import Duties
from fluxtui.engine.keeper.gauges import Gauges
from fluxtui.engine.keeper.journal import Journal, SessionGoneError
from fluxtui.engine.keeper.keep import Keeper
from fluxtui.engine.keeper.loop import STOPS, Loop
from fluxtui.engine.keeper.queue import Lease
from fluxtui.engine.keeper.session_log import Log
from fluxtui.engine.keeper.startup import Arguments
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist import process
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import StorageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.sessions.record import Record, Result

CRASHED = Verdict("failed", "crashed", is_retried=True, marker="CRASHED", culprit=RankExit(0, signal=11))


@pytest.fixture
def one(lab: Lab) -> Session:
    return lab.session(guard=fast(max_auto_resumes=3))


@pytest.fixture
def duties(one: Session) -> Iterator[Duties]:
    """A keeper's, in this process: its first attempt is starting."""
    handlers = {number: signal.getsignal(number) for number in STOPS}
    lock = Lock.take(one.folder.lock_file)
    assert lock is not None
    with Loop() as loop:
        log = Log(one.folder.log_file)
        journal = Journal(one.folder, lock, log, loop.watch)
        record = Record(
            session_id=one.spec.id, attempt=1, nonce="n", status="queued", queued_at=journal.today(), host=os.uname().nodename,
            boot_id=process.boot_id(), run_id="r", gpus=["GPU-aa"],
        )  # fmt: skip
        journal.begin(record)
        journal.transition("starting")
        yield Duties(one.lab.home, one.folder, one.spec, loop, log, journal)
    lock.release()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def keeper_of(duties: Duties, gauges: Gauges | None = None) -> Keeper:
    return Keeper(duties, Arguments(duties.home.root, duties.folder.name), None, gauges or Gauges())


def outcomes(record: Record) -> dict[str, str]:
    return {ack.id: ack.outcome for ack in record.acks}


class Slow(Gauges):
    """A GPU whose memory takes some looks to come back."""

    looks = 6

    def holds_memory(self, pids: set[int]) -> bool:
        self.looks -= 1
        return self.looks > 0


@pytest.mark.parametrize("verb", ["stop", "kill", "stop-after-epoch"])
def test_a_stop_while_the_gpus_memory_comes_back_is_answered_and_no_retry_follows(one: Session, duties: Duties, verb: str):
    asked = one.request(verb)
    keeper_of(duties, Slow()).await_memory(set())
    assert not list(one.folder.control.iterdir())  # it was taken then
    assert attempt_end.retry_after(duties, CRASHED, "") is None
    attempt_end.write_verdict(duties, CRASHED, lambda: None)
    record = one.record()
    assert (record.status, outcomes(record)) == ("failed", {asked: "accepted: it has ended already, and is not tried again"})
    assert duties.is_called_off


def test_a_kill_while_the_gpus_memory_comes_back_is_obeyed_by_what_follows(one: Session, duties: Duties):
    asked = one.request("kill")
    keeper_of(duties, Slow()).await_memory(set())
    _ready, requests = duties.turn(0.0)
    assert [request.id for request in requests] == [asked]


def test_a_stop_while_the_verdict_is_owed_is_answered_and_the_devices_are_given_back_at_once(
    one: Session, duties: Duties, monkeypatch: pytest.MonkeyPatch
):
    real, asked, given_back = toml.write, [], []

    def full(path, value):
        raise StorageError("the disk is full", errno.ENOSPC)

    def give_back():
        if not given_back:
            asked.append(one.request("stop"))
        given_back.append(len(given_back))
        if duties.journal.record.acks:
            monkeypatch.setattr(toml, "write", real)

    monkeypatch.setattr(toml, "write", full)
    attempt_end.write_verdict(duties, CRASHED, give_back)
    assert given_back
    record = one.record()
    assert record.status == "failed"
    assert outcomes(record) == {asked[0]: "accepted: it has ended already, and is not tried again"}
    assert duties.is_called_off


def test_a_session_that_is_removed_while_its_product_is_hashed_is_gone_and_not_unproven(one: Session, duties: Duties):
    one.folder.product.write_bytes(b"weights")
    claim = Result(
        session_id=one.spec.id, attempt=1, nonce="n", recipe_sha256="", step=1, file=one.folder.product.name, size=7,
        sha256="", tensors_sha256="",
    )  # fmt: skip
    toml.write(one.folder.result_file, claim)
    one.folder.lock_file.unlink()
    with pytest.raises(SessionGoneError):
        proof.check_claim(one.folder, duties.journal.record, 0, duties.breathe)


def test_only_a_newer_checkpoint_begins_the_count_of_retries_anew(duties: Duties):
    duties.journal.update(retry=2)
    for now, before, number in (
        ("step-000000010", "step-000000020", 3),
        ("", "step-000000020", 3),
        ("step-000000020",) * 2 + (3,),
    ):
        duties.journal.update(checkpoint=now)
        again = attempt_end.retry_after(duties, CRASHED, before)
        assert again is not None
        assert again.number == number
    duties.journal.update(checkpoint="step-000000030")
    again = attempt_end.retry_after(duties, CRASHED, "step-000000020")
    assert again is not None
    assert again.number == 1


@pytest.mark.parametrize(("retries", "delay", "pause"), [(0, 0.2, 0.2), (1, 0.2, 0.4), (2, 0.2, 0.8), (2, 1800.0, 3600.0)])
def test_the_pause_before_a_retry_doubles_up_to_an_hour(duties: Duties, retries: int, delay: float, pause: float):
    duties.spec = msgspec.structs.replace(duties.spec, guard=msgspec.structs.replace(duties.spec.guard, retry_delay=delay))
    duties.journal.update(retry=retries)
    again = attempt_end.retry_after(duties, CRASHED, "")
    assert again is not None
    assert again.pause == pytest.approx(pause)


def test_checkpoints_that_cannot_be_listed_leave_what_is_known_of_them(duties: Duties, monkeypatch: pytest.MonkeyPatch):
    duties.journal.update(checkpoint="step-000000010")

    def broken(parent):
        raise StorageError("cannot list it", errno.EIO)

    monkeypatch.setattr(commit, "committed", broken)
    attempt_end.see_checkpoint(duties)
    assert duties.journal.record.checkpoint == "step-000000010"


def test_the_beat_goes_on_and_requests_are_heard_while_a_checkpoint_is_hashed(one: Session, duties: Duties):
    commit.commit_checkpoint(one.folder.checkpoints, commit.step_name(3), {"big": bytes(3 << 20)}, {})
    duties.turn(0.0)
    duties._looked = -10.0
    duties.journal._written = -10.0
    before, asked = one.record().beat_at, one.request("kill")
    attempt_end.see_checkpoint(duties)
    assert [request.id for request in duties.take_pending()] == [asked]
    assert one.record().beat_at > before
    assert duties.journal.record.checkpoint == "step-000000003"


class Scripted(Keeper):
    """A keeper whose attempts end as they are told to."""

    ends = (
        Verdict("failed", "the GPU was lost", is_retried=True, culprit=RankExit(0, code=TrainerExit.GPU_LOST)),
        Verdict("failed", "and now for good"),
    )

    def attempt(self, pause):
        self.seen.append(list(self.journal.record.gpus))
        if self.journal.record.status == "queued":
            self.journal.transition("starting")
        return self.ends[len(self.seen) - 1]

    seen: ClassVar[list[list[str]]] = []


def test_after_a_lost_gpu_the_retry_waits_in_the_queue_like_anybody(one: Session, duties: Duties):
    held = Lock.take(one.lab.path / "gpu")
    keeper = Scripted(duties, Arguments(duties.home.root, "one"), None, lease=Lease(["GPU-aa"], [held]))
    Scripted.seen.clear()
    assert keeper.keep() == 0
    assert Scripted.seen == [["GPU-aa"], []]
    assert not Lock.held(one.lab.path / "gpu")
    assert [record.status for record in one.records()] == ["failed", "failed"]


def test_a_retry_that_keeps_its_gpu_says_so(one: Session, duties: Duties):
    attempt_end.write_verdict(duties, CRASHED, lambda: None)
    attempt_end.begin_retry(duties, Again(1, 0.0), ["GPU-aa"])
    assert one.record().gpus == ["GPU-aa"]


def test_a_stop_after_the_epoch_holds_for_the_retry_of_a_trainer_that_crashed(lab: Lab, tmp_path):
    lab.plan(
        {"attempt": 1, "at": 7, "do": "wait_for", "reached": str(tmp_path / "in"), "until": str(tmp_path / "go")},
        {"attempt": 1, "at": 8, "do": "segfault"},
    )
    one = lab.session(steps=40, every=5)
    keeper = one.start()
    until((tmp_path / "in").exists)
    asked = one.request("stop-after-epoch")
    until(lambda: outcomes(one.record()).get(asked) == "accepted")
    (tmp_path / "go").touch()
    seen = until(lambda: (two := one.record()).attempt == 2 and two.stops_after_epoch)
    keeper.wait()
    one.check()
    assert [(record.status, record.step) for record in one.records()][-1] == ("stopped", 10)
    assert seen  # the record of the retry said so, before its trainer was there
    assert one.record(1).signal == "SIGSEGV"  # the fault happened


def test_an_on_end_that_is_no_command_is_said_and_ends_nothing(lab: Lab):
    lab.home.config.write_text("on_end = 5\n")
    one = lab.session()
    assert one.start().wait() == 0
    assert "on_end of config.toml is neither a command" in one.log()
    assert one.record().status == "completed"


def test_on_end_runs_though_the_keeper_itself_failed(lab: Lab, tmp_path):
    """The keeper's own code raises, as a mistake of ours would."""
    said, site = tmp_path / "said", tmp_path / "site"
    site.mkdir()
    broken = "from fluxtui.engine.keeper import keep\ndef fails(self):\n    raise RuntimeError('a mistake')\n"
    broken += "keep.Keeper.keep = fails\n"
    (site / "sitecustomize.py").write_text(broken)
    lab.home.config.write_text(f"on_end = 'echo \"$FLUXTUI_NAME $FLUXTUI_STATE\" > {said}'\n")
    one = lab.session()
    keeper = one.start(PYTHONPATH=f"{site}:{lab.environment({})['PYTHONPATH']}")
    assert keeper.wait() == 1
    assert one.record().reason == "the keeper itself failed: RuntimeError: a mistake"
    until(lambda: said.exists() and said.read_text() == "one failed\n")
