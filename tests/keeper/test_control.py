"""Faults 15, 16, 42, 45: several fronts, several sessions, requests that are late, twice, torn or of another attempt."""

from __future__ import annotations

import os
import secrets
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from keeper_lab import SLOW, Lab, fast, until

from fluxtui.persist import process
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.sessions.requests import take_requests


def test_15_a_second_start_of_a_session_is_refused_and_changes_nothing(lab: Lab):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=1000)
    keeper = one.start()
    one.await_step(3)
    began = time.monotonic()
    second = one.start(may_fail=True)
    assert time.monotonic() - began < 5 * SLOW
    assert second.answer == {"ok": False, "error": "one is already running; `fluxtui show one` says where it is", "code": 4}
    assert second.wait() == 4
    assert one.attempts == [1]
    one.request("kill")
    keeper.wait()


def test_15_twenty_starts_at_once_make_one_keeper(lab: Lab):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=1000)
    answers: list[dict] = []
    threads = [threading.Thread(target=lambda: answers.append(one.start(may_fail=True).answer)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer["ok"] for answer in answers) == [False] * 7 + [True]
    assert one.attempts == [1]
    one.request("kill")
    until(lambda: not one.is_kept())


def test_15_sessions_of_one_home_queue_for_its_cpu_in_order_naming_the_owner(lab: Lab, tmp_path: Path):
    go = tmp_path / "go"
    lab.plan({"at": 2, "do": "wait_for", "reached": str(tmp_path / "in"), "until": str(go)})
    first, second, third = (lab.session(name, steps=40) for name in ("first", "second", "third"))
    keepers = [first.start()]
    until((tmp_path / "in").exists)
    keepers.append(second.start())
    until(lambda: second.record().waiting_for)
    assert second.record().status == "queued"
    assert second.record().waiting_for == "first (the CPU)"
    keepers.append(third.start())
    until(lambda: third.record().waiting_for)
    assert third.record().waiting_for == "second (before it in the queue)"
    third.request("priority", -1)
    until(lambda: third.record().priority == -1)
    go.touch()
    for keeper in keepers:
        keeper.wait()
    ended = {one.folder.name: one.record() for one in (first, second, third)}
    assert {record.status for record in ended.values()} == {"completed"}
    assert ended["first"].finished_at <= ended["third"].started_at
    assert ended["third"].finished_at <= ended["second"].started_at


def test_a_waiting_session_can_be_withdrawn_and_a_dead_one_does_not_wait(lab: Lab):
    lab.plan(step_seconds=0.05)
    first, second, third = (lab.session(name, steps=1000) for name in ("first", "second", "third"))
    keeper = first.start()
    first.await_step(1)
    waiting = second.start()
    dead = third.start()
    until(lambda: second.record().waiting_for)
    dead.process.kill()
    dead.wait()
    second.request("stop")
    waiting.wait()
    assert (second.record().status, second.record().reason) == ("stopped", "taken out of the queue")
    assert second.record().started_at is None
    last = lab.session("last", steps=10)
    following = last.start()
    until(lambda: last.record().waiting_for == "first (the CPU)")  # not the dead one, which was before it
    first.request("kill")
    keeper.wait()
    following.wait()
    assert last.record().status == "completed"


def test_a_retry_keeps_its_device(lab: Lab, tmp_path: Path):
    go = tmp_path / "go"
    lab.plan(
        {"attempt": 1, "at": 11, "do": "wait_for", "reached": str(tmp_path / "in"), "until": str(go)},
        {"attempt": 1, "at": 12, "do": "segfault"},
    )
    first, second = lab.session("first", guard=fast(retry_delay=2.0)), lab.session("second", steps=11)
    keepers = [first.start()]
    until((tmp_path / "in").exists)
    keepers.append(second.start())
    until(lambda: second.record().waiting_for == "first (the CPU)")
    go.touch()
    until(lambda: len(first.attempts) == 2 and first.record().status == "queued")
    again = first.record().reason
    assert again.startswith("retry 1 of 3 at ")
    assert "SIGSEGV" in again  # and why
    assert Lock.held(lab.home.cpu_lock)
    for keeper in keepers:
        keeper.wait()
    assert first.record().finished_at <= second.record().started_at


def test_16_many_fronts_at_once_make_one_transition(lab: Lab):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=1000)
    keeper = one.start()
    one.await_step(3)
    ids = []
    threads = [threading.Thread(target=lambda: ids.append(one.request("stop"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.await_status("stopping", "stopped", seconds=2)
    keeper.wait()
    record = one.record()
    assert (record.status, record.exit_code, one.attempts) == ("stopped", 75, [1])
    outcomes = {ack.id: ack.outcome for ack in record.acks}
    assert set(ids) <= set(outcomes)
    assert sorted(outcomes[one_id] for one_id in ids) == ["accepted"] + ["accepted: it is stopping already"] * 9


def test_16_a_kill_after_a_stop_wins(lab: Lab):
    lab.plan(step_seconds=0.05, deaf=True, ignore_term=True)
    one = lab.session(steps=1000, guard=fast(stop=600))
    keeper = one.start()
    one.await_step(12)
    one.request("stop")
    one.await_status("stopping")
    one.request("kill")
    keeper.wait(5)
    one.check()
    assert (one.record().status, one.record().reason) == ("stopped", "killed by you")


def test_a_stop_waits_for_a_drawing_that_moves_and_loses_no_step(lab: Lab):
    lab.plan({"at": 13, "do": "draw", "items": 10, "seconds": 0.5 * SLOW}, step_seconds=0.05)
    one = lab.session(steps=1000, guard=fast(stop=1))
    keeper = one.start()
    until(lambda: one.record().phase == "sample")
    one.request("stop")
    keeper.wait()
    one.check()
    record = one.record()
    assert (record.status, record.exit_code, record.checkpoint) == ("stopped", 75, commit.step_name(record.step)), record.reason


def test_42_a_request_for_a_session_that_is_over_is_read_by_nobody_and_dropped_by_the_next(lab: Lab):
    one = lab.session()
    lab.plan({"at": 15, "do": "exit", "code": 76})
    assert one.run().status == "failed"
    late = one.request("kill")
    lab.plan(step_seconds=0.02)
    record = one.run()
    assert record.status == "completed"
    assert [ack.outcome for ack in record.acks if ack.id == late] == ["dropped: it was for attempt 1, this is attempt 2"]


def test_42_kill_during_the_stops_own_checkpoint_leaves_the_last_one_intact(lab: Lab, tmp_path: Path):
    lab.plan(
        {"when": "commit", "at": 15, "do": "wait_for", "reached": str(tmp_path / "in"), "until": str(tmp_path / "go")},
        step_seconds=0.05,
    )
    one = lab.session(steps=1000, every=10)
    keeper = one.start()
    one.await_step(15)
    one.request("stop")
    until((tmp_path / "in").exists)
    one.request("kill")
    keeper.wait()
    one.check()
    record = one.record()
    assert record.status == "stopped"
    assert record.checkpoint == commit.committed(one.folder.checkpoints)[-1]


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 100, b"verb = ", b'verb = "stop"\n', b'verb = "explode"\nid = "1"\n', b"[" * 5000, os.urandom(4096),
     b"x" * 200_000, b'id = "aa"\nverb = "stop"\nattempt = "one"\nat = 2026-01-01T00:00:00Z\n'],
)  # fmt: skip
def test_45_a_control_file_of_garbage_is_consumed_and_ignored(lab: Lab, data):
    one = lab.session()
    (one.folder.control / f"{time.time_ns():020d}-aa.toml").write_bytes(data)
    found, rejected = take_requests(one.folder)
    assert found == []
    assert len(rejected) == 1
    assert not any(one.folder.control.iterdir())


def test_45_garbage_and_strangers_requests_do_not_disturb_a_run_and_are_logged(lab: Lab):
    lab.plan(
        {"at": 9, "do": "garbage", "text": "{torn\n"},
        {"at": 11, "do": "garbage", "text": "z", "times": 2**20},
        step_seconds=0.05,
    )
    one = lab.session(steps=40)
    keeper = one.start()
    one.await_step(5)
    control = one.folder.control
    for number in range(20):
        (control / f"{number:020d}-x.toml").write_bytes(secrets.token_bytes(300))
    (control / "folder.toml").mkdir()
    os.mkfifo(control / "fifo.toml")
    one.request("kill", attempt=7)
    now = datetime.now(UTC)
    (control / "forged.toml").write_text(f'id = "{"a" * 5000}"\nverb = "kill"\nattempt = 1\nat = {now:%Y-%m-%dT%H:%M:%SZ}\n')
    keeper.wait()
    one.check()
    record = one.record()
    assert (record.status, record.attempt) == ("completed", 1)
    assert [ack.outcome for ack in record.acks] == ["dropped: it was for attempt 7, this is attempt 1"]
    assert "a control request was ignored" in one.log()
    assert "garbage on the progress pipe was ignored" in one.log()
    assert not [name for name in os.listdir(control) if not name.startswith(".")]


def test_17_whoever_started_the_keeper_may_die(lab: Lab):
    """The front is killed with its whole group and terminal; keeper and trainer are sessions of their own."""
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=40)
    keeper = one.start(wrap=["/bin/sh", "-c", '"$@" & wait', "sh"])
    record = one.await_step(3)
    assert os.getsid(record.ranks[0].pid) == record.ranks[0].pid
    keeper.process.kill()
    keeper.wait()
    until(lambda: one.record().status == "completed")
    until(lambda: not process.is_alive(record.keeper))
    one.check()
