"""Sessions that are killed, and keepers that died: who is signalled, and what is said."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from typing import Any

import pytest

from fluxtui import control
from fluxtui.persist import process
from fluxtui.persist.errors import StorageError
from fluxtui.persist.sessions.record import ProcessIdentity, Record
from tests.cli.conftest import Lab, until


def training(lab: Lab) -> tuple[Record, ProcessIdentity]:
    """The record of session a, which trains slowly, and its keeper."""
    lab.plan(step_seconds=0.1)
    lab.make("a")
    control.start(lab.home, "a")
    record = lab.await_step(2).record
    assert record is not None
    assert record.keeper is not None
    return record, record.keeper


def test_a_folder_that_may_not_be_entered_is_no_fault_of_a_kill(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.make("a")
    for call in ("stat", "open"):
        real = getattr(os, call)

        def denied(path: Any, *words: Any, real: Any = real, **named: Any) -> Any:
            if str(path).endswith("slurm/job.toml"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return real(path, *words, **named)

        monkeypatch.setattr(os, call, denied)
    assert "was not started yet" in lab.call("kill", "a").sentence


def test_kill_of_a_keeper_that_is_frozen_reaches_that_process_and_the_trainer_goes_with_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxtui.control import ask

    monkeypatch.setattr(ask, "KILL_SECONDS", 1.0)
    record, keeper = training(lab)
    os.kill(keeper.pid, signal.SIGSTOP)
    until(lambda: lab.look().state == "suspended")
    answer = control.kill(lab.home, "a")
    assert "did not answer" in answer.sentence
    until(lambda: not any(process.is_alive(one) for one in [keeper, *record.ranks]))
    assert lab.look().state == "lost"
    assert lab.call("kill", "a").code == 4
    lab.plan()
    assert lab.call("resume", "--lost").code == 0
    assert lab.call("wait", "a", "--timeout", "60").code == 0


def test_kill_of_a_copy_that_shares_its_lock_ends_no_other_session(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxtui.control import ask

    monkeypatch.setattr(ask, "KILL_SECONDS", 1.0)
    _, keeper = training(lab)
    copy = lab.home.session("b").path
    shutil.copytree(lab.home.session("a").path, copy, copy_function=os.link)  # as cp -al does
    assert lab.look("b").is_active, "the copy shares lock and record"
    with pytest.raises(StorageError, match="no process of yours here"):
        control.kill(lab.home, "b")
    assert process.is_alive(keeper)
    assert lab.look("a").state == "running"


def test_kill_blames_no_keeper_where_something_lies_in_the_place_of_the_lock(lab: Lab) -> None:
    lab.make("a")
    lock = lab.home.session("a").lock_file
    lock.unlink(missing_ok=True)
    lock.mkdir()
    asked = lab.call("kill", "a")
    lock.rmdir()
    assert (asked.code, asked.sentence) == (1, f"fluxtui: {lock} is not a regular file, so it cannot be a lock; remove it")


def test_a_dead_keeper_is_told_and_all_that_is_lost_resumes_at_once(lab: Lab) -> None:
    _, keeper = training(lab)
    os.kill(keeper.pid, signal.SIGKILL)
    assert lab.call("wait", "a", "--timeout", "20").code == 1
    assert "keeper died" in lab.look().reason
    assert "resume a" in lab.call("stop", "a").sentence
    lab.plan()
    resumed = lab.call("resume", "--lost")
    assert (resumed.code, "attempt 2" in resumed.err) == (0, True)
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    assert "No session is lost" in lab.call("resume", "--lost").err
