"""Requests when something is in the way: a disk that takes none, a keeper without a record, the moment between two attempts."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fluxtui import control
from fluxtui.control import keepers
from fluxtui.persist import process
from fluxtui.persist.errors import StorageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.sessions import requests
from fluxtui.persist.sessions.record import Acknowledgement, Record
from tests.cli.conftest import Lab, until
from tests.ui.fabricate import make_record

HOLDS = "import sys, time; from pathlib import Path; from fluxtui.persist.files.lock import Lock; "
HOLDS += "lock = Lock.take(Path(sys.argv[-1])); print('held', flush=True); time.sleep(600)"


def running(lab: Lab) -> Record:
    lab.plan(step_seconds=0.05)
    lab.make("a", train__steps=100_000)
    control.start(lab.home, "a")
    record = lab.await_step(2).record
    assert record is not None
    return record


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """For requests; what the keeper writes is not touched."""

    def refuses(path: Path, *_: object) -> None:
        raise StorageError.of(OSError(errno.EROFS, ""), "write", path)

    monkeypatch.setattr(requests, "write_file", refuses)


@pytest.mark.usefixtures("no_room")
def test_a_kill_reaches_the_keeper_though_the_disk_takes_no_request(lab: Lab) -> None:
    record = running(lab)
    killed = lab.call("kill", "a")
    assert killed.code == 0, killed
    assert "could not be asked" in killed.err
    assert "read-only" in killed.err
    assert record.keeper is not None
    until(lambda: not any(process.is_alive(one) for one in [record.keeper, *record.ranks]))
    assert lab.look().state == "lost"


@pytest.mark.usefixtures("no_room")
def test_a_stop_reaches_the_keeper_though_the_disk_takes_no_request(lab: Lab) -> None:
    running(lab)
    stopped = lab.call("stop", "a", "--after-epoch")
    assert stopped.code == 1, "only a request can say that"
    assert "read-only" in stopped.sentence
    stopped = lab.call("stop", "a")
    assert stopped.code == 0, stopped
    assert "by a signal" in stopped.err
    assert lab.call("wait", "a", "--timeout", "60").code == 1
    assert (lab.look().state, bool(lab.look().checkpoint)) == ("stopped", True)


def test_a_stop_of_one_that_waits_says_that_it_leaves_the_queue_and_no_checkpoint(lab: Lab) -> None:
    running(lab)
    lab.make("b")
    control.start(lab.home, "b")
    lab.await_state("queued", name="b")
    stopped = lab.call("stop", "b")
    assert (stopped.code, stopped.out + stopped.err) == (0, "b: taken out of the queue.\n")
    assert lab.await_state("stopped", name="b").reason == "taken out of the queue"


def test_a_keeper_that_no_signal_ends_is_not_called_ended(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in an uninterruptible write: here the signal is said to be sent, and nobody dies of it."""
    from fluxtui.control import ask

    monkeypatch.setattr(ask, "KILL_SECONDS", 0.3)
    monkeypatch.setattr(process, "send", lambda *_: True)
    lab.make("a")
    hung = hold(lab)
    try:
        killed = lab.call("kill", "a")
        assert killed.code == 5
        assert "is still there" in killed.err
    finally:
        hung.kill()
        hung.wait()


def hold(lab: Lab, name: str = "a") -> subprocess.Popen[bytes]:
    """A keeper that took the lock of the session and hangs before its first record."""
    home, lock = str(lab.home.root), str(lab.home.session(name).lock_file)
    command = [sys.executable, "-c", HOLDS, "-m", "fluxtui.engine", "keep", "--home", home, "--session", name, lock]
    hung = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, process.RUN_ID_VARIABLE: "0123"})
    assert hung.stdout is not None
    assert hung.stdout.readline() == b"held\n"
    hung.stdout.close()
    return hung


@pytest.mark.parametrize("has_record", [False, True])
def test_a_keeper_that_hangs_before_its_first_record_can_be_killed_and_its_session_removed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, has_record: bool
) -> None:
    from fluxtui.control import ask, watch

    monkeypatch.setattr(ask, "KILL_SECONDS", 0.5)
    monkeypatch.setattr(watch, "RETRY_SECONDS", 0.3)
    for name in ("a", "b"):
        lab.make(name)
    if has_record:  # of an attempt before the one that hangs
        make_record(lab.home.session("a"), status="failed", reason="why")
    hung, other = hold(lab), hold(lab, "b")
    try:
        refused = lab.call("rm", "a", "--yes")
        assert refused.code == 4
        assert "fluxtui kill a" in refused.sentence
        assert lab.call("kill", "a").code == 0
        assert hung.wait(10) == -9
        assert other.poll() is None, "a keeper of another session"
        assert lab.call("rm", "a", "--yes").code == 0
        assert lab.call("kill", "a").code == 3
    finally:
        for one in (hung, other):
            one.kill()
            one.wait()


def test_nobody_is_found_who_only_looks_like_the_keeper(lab: Lab) -> None:
    lab.make("a")
    hung = hold(lab)
    try:
        found = keepers.find(lab.home, "a")
        assert found is not None
        assert found.pid == hung.pid
        assert keepers.find(lab.home, "b") is None
    finally:
        hung.kill()
        hung.wait()
    arguments = ["-m", "fluxtui.engine", "keep", "--home", str(lab.home.root), "--session", "a"]
    without = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *arguments])
    try:
        assert keepers.find(lab.home, "a") is None, "it has not the lock open"
    finally:
        without.kill()
        without.wait()


@pytest.mark.parametrize("verb", ["kill", "stop"])
@pytest.mark.parametrize("is_asked_before", [True, False])
def test_what_is_asked_for_between_two_attempts_is_asked_of_the_second(lab: Lab, verb: Any, is_asked_before: bool) -> None:
    """The keeper's part is played here: its attempt fails, it holds the lock on, and half a second later it tries again."""
    lab.make("a")
    folder = lab.home.session("a")
    first = make_record(folder, status="running" if is_asked_before else "failed", reason="why")
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    answers: list[control.Answer] = []
    asking = threading.Thread(target=lambda: answers.append(getattr(control, verb)(lab.home, "a")))
    asking.start()
    if is_asked_before:
        until(lambda: any(folder.control.glob("*.toml")))
        toml.write(folder.attempt_file(1), msgspec.structs.replace(first, status="failed", reason="why"))
    asking.join(0.5)
    assert asking.is_alive(), answers
    second = msgspec.structs.replace(first, attempt=2, status="queued", reason="retry 1 of 3")
    toml.write(folder.attempt_file(2), second)
    taken = until(lambda: [request for request in requests.take_requests(folder)[0] if request.attempt == 2])
    assert [request.verb for request in taken] == [verb]
    ack = Acknowledgement(taken[0].id, verb, taken[0].at, "accepted")
    toml.write(folder.attempt_file(2), msgspec.structs.replace(second, status="stopped", acks=[ack]))
    asking.join(10)
    lock.release()
    assert len(answers) == 1
    assert not answers[0].is_pending
    assert "failed" not in answers[0].sentence
