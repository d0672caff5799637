"""What a resume takes over from the attempt before it: the checkpoint that was chosen, what was set, the place in the queue."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from keeper_lab import Lab, Session, until

from fluxtui.engine.keeper import startup
from fluxtui.engine.keeper.clock import wall
from fluxtui.persist import process
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import RefusedError, StorageError
from fluxtui.persist.files import toml
from fluxtui.persist.sessions import overview, state
from fluxtui.persist.sessions.record import Record

CHOSEN = "step-000000010"


@pytest.fixture
def one(lab: Lab) -> Session:
    """Failed at step 25, with checkpoints of steps 10 and 20."""
    lab.plan({"at": 25, "do": "exit", "code": 76})
    session = lab.session()
    assert session.run().status == "failed"
    assert commit.committed(session.folder.checkpoints) == [CHOSEN, "step-000000020"]
    return session


def kept(one: Session) -> list[str]:
    return sorted(name for name in os.listdir(one.folder.checkpoints) if name.startswith(".newer-"))


def test_a_retry_goes_on_from_the_chosen_checkpoint_though_the_trainer_never_came_to_it(one: Session):
    one.lab.plan({"attempt": 2, "at": "start", "do": "segfault"})
    one.start("--resume", CHOSEN).wait()
    one.check()
    second, third = one.record(2), one.record(3)
    assert (second.signal, second.resumed_from) == ("SIGSEGV", "")  # the fault happened
    assert (third.status, third.resumed_from) == ("completed", CHOSEN)
    assert kept(one) == [".newer-step-000000020-1"]


def test_a_lost_session_goes_on_from_the_chosen_checkpoint(one: Session):
    one.lab.plan({"attempt": 2, "at": "start", "do": "hang"})
    keeper = one.start("--resume", CHOSEN)
    until(lambda: one.record().ranks)
    keeper.process.kill()
    keeper.wait()
    assert overview.look(one.lab.home, "one").state == "lost"
    one.lab.plan()
    record = one.run()
    assert (record.status, record.resumed_from) == ("completed", CHOSEN)


def test_a_damaged_checkpoint_is_not_chosen_and_nothing_is_set_aside_for_it(one: Session):
    (one.folder.checkpoints / CHOSEN / "state.bin").write_bytes(b"flipped")
    refused = one.start("--resume", CHOSEN, may_fail=True)
    assert refused.wait() == 1
    assert "state.bin" in refused.answer["error"]
    assert one.attempts == [1]
    assert commit.committed(one.folder.checkpoints) == [CHOSEN, "step-000000020"]


def test_what_was_set_for_an_attempt_holds_for_the_next_until_it_is_set_anew(lab: Lab):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=200)
    keeper = one.start("--set", "guard.stop=44", "--set", "checkpoint.every_steps=5", "--priority", "3")
    one.await_step(6)
    keeper.process.kill()
    keeper.wait()
    keeper = one.start()  # as a boot script would
    assert (one.record().overrides, one.record().priority) == ({"guard.stop": 44, "checkpoint.every_steps": 5}, 3)
    one.request("kill")
    keeper.wait()
    keeper = one.start("--set", "guard.stop=55", "--priority", "0")
    assert (one.record().overrides, one.record().priority) == ({"guard.stop": 55, "checkpoint.every_steps": 5}, 0)
    one.request("kill")
    keeper.wait()


def test_what_can_no_longer_be_set_is_not_taken_over(one: Session):
    record = one.record()
    spoilt = msgspec.structs.replace(record, overrides={"no.such.key": 1, "train.steps": 7, "guard.stop": 44})
    toml.write(one.folder.attempt_file(1), spoilt)
    one.lab.plan()
    one.start().wait()
    assert (one.record().status, one.record().overrides) == ("completed", {"guard.stop": 44})


ELSEWHERE = [
    ("the same boot, a container of another name", {"host": "another"}, 0, False),
    ("another machine, fresh", {"host": "another", "boot_id": "another"}, -5, True),
    ("another machine, long ago", {"host": "another", "boot_id": "another"}, -3600, False),
    ("another machine, a beat of tomorrow", {"host": "another", "boot_id": "another"}, 86400, False),
    ("this machine, rebooted", {"boot_id": "another"}, -5, False),
]


@pytest.mark.parametrize(("_what", "changes", "seconds", "is_elsewhere"), ELSEWHERE, ids=[row[0] for row in ELSEWHERE])
@pytest.mark.parametrize("has_zone", [True, False], ids=["with a zone", "without one"])
def test_front_and_keeper_agree_on_what_runs_elsewhere(one: Session, _what, changes, seconds, is_elsewhere, has_zone):
    beat = datetime.now(UTC).astimezone() + timedelta(seconds=seconds)
    known = {"status": "running", "host": os.uname().nodename, "boot_id": process.boot_id(), "finished_at": None} | changes
    document = msgspec.to_builtins(msgspec.structs.replace(one.record(), **known), builtin_types=(datetime,))
    document["beat_at"] = beat if has_zone else beat.replace(tzinfo=None)
    toml.write(one.folder.attempt_file(1), document)
    assert (overview.look(one.lab.home, "one").state == "elsewhere") is is_elsewhere
    arguments = startup.Arguments(one.lab.home.root, "one")
    history = [toml.read(one.folder.attempt_file(1), Record)]
    if is_elsewhere:
        with pytest.raises(RefusedError, match="is running on another"):
            startup._refuse(one.folder, arguments, history, history[0].recipe_sha256)
    else:
        startup._refuse(one.folder, arguments, history, history[0].recipe_sha256)


def test_of_another_machine_whose_clock_is_off_a_record_that_changes_is_alive_and_one_that_does_not_is_dead(
    one: Session, monkeypatch: pytest.MonkeyPatch
):
    """No lock of it is seen, as on a file system that cannot lock."""
    known = msgspec.structs.replace(one.record(), status="running", host="another", boot_id="another", finished_at=None)
    is_over = threading.Event()

    def write_beat() -> None:
        toml.write_beat(one.folder.attempt_file(1), msgspec.structs.replace(known, beat_at=wall() + timedelta(hours=3)))

    def live() -> None:
        while not is_over.wait(0.3):
            write_beat()

    write_beat()
    other = threading.Thread(target=live)
    other.start()
    try:
        assert overview.look(one.lab.home, "one").state in ("lost", "elsewhere")  # by one look nobody can tell
        until(lambda: overview.look(one.lab.home, "one").state == "elsewhere", 5)
        refused = one.start(may_fail=True)
        assert refused.wait() == 4
        assert "is running on another, whose clock is not this machine's" in refused.answer["error"]
    finally:
        is_over.set()
        other.join()
    assert one.attempts == [1]
    monkeypatch.setattr(state, "ELSEWHERE_SECONDS", 0.5)
    until(lambda: overview.look(one.lab.home, "one").state == "lost", 5)
    one.lab.plan()
    assert one.run().status == "completed"


def test_a_changed_product_that_cannot_be_set_aside_refuses_the_start_and_leaves_no_record(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    one = lab.session()
    assert one.run().status == "completed"
    one.folder.product.write_bytes(b"somebody's work")

    def fails(parent, name, label="corrupt"):
        raise StorageError("cannot set aside")

    monkeypatch.setattr(commit, "set_aside", fails)
    with pytest.raises(StorageError, match="cannot set aside"):
        startup.open_session(startup.Arguments(lab.home.root, "one"))
    assert one.attempts == [1]
    assert one.folder.product.read_bytes() == b"somebody's work"
