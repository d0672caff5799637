"""Faults 8, 9, 11, 13, 14: what hangs is found by missing progress and ended; what is only slow is not."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from keeper_lab import SLOW, Lab, fast, until

from fluxtui.persist import process


def lived(record) -> float:
    return (record.finished_at - record.started_at).total_seconds()


def test_8_a_stopped_trainer_is_found_its_stack_logged_and_the_session_resumed_exactly(lab: Lab):
    lab.plan({"attempt": 1, "at": 15, "do": "sigstop"}, step_seconds=0.1)
    one = lab.session(steps=40)
    keeper = one.start()
    record = one.await_step(15)
    assert until(lambda: process.state_letter(record.ranks[0].pid) == "T")  # the fault happened
    keeper.wait()
    one.check()
    first, second = one.records()
    assert first.status == "failed"
    assert first.reason.startswith("hung in train for")
    assert "Current thread" in one.log()
    assert re.search(r"^TRAINING STUCK DETECTED - train, \d+ seconds$", one.log(), re.M)
    assert (second.status, second.retry, second.resumed_from) == ("completed", 1, first.checkpoint)
    assert second.queued_at == first.queued_at


def test_9_a_stopped_keeper_is_in_state_t_and_blames_nobody_when_it_goes_on(lab: Lab):
    lab.plan(step_seconds=0.1)
    one = lab.session(steps=60, every=50)
    keeper = one.start()
    rank = one.await_step(10).ranks[0]
    os.kill(keeper.pid, signal.SIGSTOP)
    until(lambda: process.state_letter(keeper.pid) == "T")
    os.kill(rank.pid, signal.SIGSTOP)  # the machine as a whole stands still
    time.sleep(5 * SLOW)  # longer than the limit of a step
    os.kill(keeper.pid, signal.SIGCONT)
    os.kill(rank.pid, signal.SIGCONT)
    keeper.wait()
    one.check()
    record = one.record()
    assert (record.status, record.attempt) == ("completed", 1)
    assert "the keeper stood still for" in one.log()
    assert "STUCK" not in one.log()


def test_11_a_trainer_that_holds_the_gil_is_killed_from_outside_with_its_stack(lab: Lab):
    lab.plan({"attempt": 1, "at": 15, "do": "hold_gil"})
    one = lab.session()
    record = one.run()
    first = one.record(1)
    assert "holding the GIL" in one.log()
    assert (first.status, first.signal) == ("failed", "SIGKILL")
    assert first.reason.startswith("hung in train for")
    assert "in do_hold_gil" in one.log()
    assert record.status == "completed"


def test_13_a_slow_step_is_amber_at_most(lab: Lab):
    lab.plan({"at": 15, "do": "hang", "seconds": 3.5 * SLOW})
    one = lab.session(guard=fast(step=5))
    keeper = one.start()
    seen = until(lambda: one.record().amber)
    assert seen.startswith("train for")
    assert seen.endswith(f"(limit {5 * SLOW:.0f} s)")
    keeper.wait()
    one.check()
    record = one.record()
    assert (record.status, record.attempt, record.amber) == ("completed", 1, "")


def test_13_a_load_that_burns_cpu_is_given_more_time_and_one_that_sleeps_is_not(lab: Lab):
    floors = fast(load=2, auto_resume=False)
    lab.plan({"when": "load", "do": "spin", "seconds": 4 * SLOW})
    busy = lab.session("busy", guard=floors)
    assert busy.run().status == "completed"
    lab.plan({"when": "load", "do": "hang"})
    asleep = lab.session("asleep", guard=floors)
    record = asleep.run()
    assert record.status == "failed"
    assert record.reason.startswith("hung in load for")


def test_a_limit_of_zero_never_kills(lab: Lab):
    lab.plan({"at": 15, "do": "hang", "seconds": 4 * SLOW})
    one = lab.session(guard=fast(step=0))
    assert one.run().status == "completed"
    assert len(one.attempts) == 1


def test_a_trainer_that_never_says_a_word_is_ended(lab: Lab):
    lab.plan(before_life=3600)
    one = lab.session(guard=fast(start=2, auto_resume=False))
    record = one.run()
    assert record.status == "failed"
    assert record.reason.startswith("hung in start for ")


def test_14_a_data_loader_that_gives_nothing_is_named(lab: Lab):
    lab.plan({"when": "batch", "at": 15, "do": "hang", "attempt": 1})
    one = lab.session()
    record = one.run()
    assert one.record(1).reason.startswith("hung in data (no batch from the data loader) for")
    assert record.status == "completed"


def test_14_a_dead_data_worker_is_the_reason_and_is_tried_again(lab: Lab):
    lab.plan({"at": 15, "do": "exit", "code": 82, "error": "data worker 1 was ended by SIGKILL", "attempt": 1})
    one = lab.session()
    record = one.run()
    assert one.record(1).reason == "data worker 1 was ended by SIGKILL"
    assert (record.status, record.retry) == ("completed", 1)


def test_14_children_in_sessions_of_their_own_that_hold_the_pipe_do_not_outlive_the_trainer(lab: Lab, tmp_path: Path):
    files = [tmp_path / "with", tmp_path / "without"]
    lab.plan(
        {"at": 5, "do": "stray", "pid_file": str(files[0])},
        {"at": 6, "do": "stray", "pid_file": str(files[1]), "keeps_environment": False},
        {"at": 15, "do": "signal", "signal": "SIGKILL"},
    )
    one = lab.session(guard=fast(auto_resume=False))
    keeper = one.start()
    until(lambda: all(file.exists() and file.read_text() for file in files))
    pids = [int(file.read_text()) for file in files]
    assert all(os.getsid(pid) == pid for pid in pids if process.state_letter(pid))
    keeper.wait()
    one.check()
    assert one.record().reason.startswith("killed by SIGKILL in train")
    assert all(process.state_letter(pid) is None for pid in pids)


def test_14_the_same_children_are_gone_after_a_good_end_too(lab: Lab, tmp_path: Path):
    file = tmp_path / "pid"
    lab.plan({"at": 5, "do": "stray", "pid_file": str(file), "keeps_environment": False})
    one = lab.session()
    assert one.run().status == "completed"
    assert process.state_letter(int(file.read_text())) is None


def test_retries_are_counted_without_a_new_checkpoint_and_come_to_an_end(lab: Lab):
    lab.plan({"at": 15, "do": "segfault"})
    one = lab.session(guard=fast(max_auto_resumes=2))
    record = one.run()
    assert [(each.status, each.retry) for each in one.records()] == [("failed", 0), ("failed", 1), ("failed", 2)]
    assert record.reason.endswith("given up after 2 retries without a new checkpoint")
