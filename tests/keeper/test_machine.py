"""Faults 2, 18, 19, 20, 39, 46 and what was lost: the keeper dies, the machine changes, folder or package is replaced."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from keeper_lab import Lab, fast, until

from fluxtui import control
from fluxtui.persist import process
from fluxtui.persist.errors import RefusedError
from fluxtui.persist.files import toml
from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.record import ProcessIdentity, Record

LIBFAKETIME = next((path for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def all_gone(record: Record) -> bool:
    return not any(process.is_alive(rank) for rank in record.ranks)


def test_2_when_the_keeper_is_killed_every_rank_is_gone_at_once_and_a_resume_is_exact(lab: Lab):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=200, every=10, ranks=2)
    for attempt in (1, 2, 3):
        keeper = one.start()
        record = one.await_step(15 * attempt)
        keeper.process.kill()
        keeper.wait()
        until(lambda record=record: all_gone(record), 2.0)
        assert one.record().status in ("running", "starting")  # nobody wrote a farewell: lost
    lab.plan()
    record = one.run()
    assert (record.status, record.attempt) == ("completed", 4)


def test_lost_after_the_product_was_made_a_resume_proves_and_trains_nothing(lab: Lab, tmp_path: Path):
    reached = tmp_path / "proving"
    lab.plan(prover_reached=str(reached), prove_seconds=60)
    one = lab.session()
    keeper = one.start()
    until(reached.exists)
    keeper.process.kill()
    keeper.wait()
    until(lambda: all_gone(one.record()))
    assert one.record().phase == "prove"
    toml.write(one.folder.attempt_file(1), msgspec.structs.replace(one.record(), step=12))  # killed before the last beat
    lab.plan({"at": 30, "do": "exit", "code": 78}, {"when": "load", "do": "exit", "code": 78})  # whoever trains now fails
    record = one.run()
    assert (record.status, record.attempt, record.step) == ("completed", 2, 30)
    assert "standin attempt 2" not in one.log()


def test_lost_with_a_product_that_does_not_verify_trains_again(lab: Lab, tmp_path: Path):
    reached = tmp_path / "proving"
    lab.plan(prover_reached=str(reached), prove_seconds=60)
    one = lab.session()
    keeper = one.start()
    until(reached.exists)
    keeper.process.kill()
    keeper.wait()
    one.folder.product.write_bytes(b"torn")
    lab.plan()
    record = one.run()
    assert (record.status, record.attempt) == ("completed", 2)
    assert "standin attempt 2" in one.log()


def test_18_a_record_of_another_boot_is_resumed_and_nothing_of_it_signalled(lab: Lab):
    """The pids of the record now belong to a stranger: a sleeping process of ours."""
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=60)
    keeper = one.start()
    one.await_step(12)
    keeper.process.kill()
    keeper.wait()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ticks = process.identify(stranger.pid).start_ticks
    record = one.record()
    other = ProcessIdentity(pid=stranger.pid, start_ticks=ticks, boot_id="another-boot", run_id=record.run_id)
    toml.write(one.folder.attempt_file(1), msgspec.structs.replace(record, boot_id="another-boot", keeper=other, ranks=[other]))
    seen = overview.look(lab.home, "one")
    assert (seen.state, seen.remedy) == ("lost", "fluxtui resume one")
    assert seen.reason.startswith("machine rebooted at step ")
    with pytest.raises(RefusedError, match="it is lost; fluxtui resume one"):
        control.kill(lab.home, "one")
    lab.plan()
    record = one.run()
    assert (record.status, record.attempt) == ("completed", 2)
    assert one.record(1).status == "running"  # its keeper alone could write it
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_18_a_container_stop_terminates_all_then_kills_all(lab: Lab):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=1000)
    keeper = one.start()
    record = one.await_step(12)
    for pid in (keeper.pid, record.ranks[0].pid):
        os.kill(pid, signal.SIGTERM)
    keeper.wait(10)
    one.check()
    assert (one.record().status, one.record().exit_code) == ("stopped", 75)
    assert one.record().checkpoint


def test_18_a_container_stop_that_is_not_obeyed_in_its_time_kills_all_and_a_resume_is_exact(lab: Lab):
    """TERM to all, and KILL to all after the container's patience, shortened here; the trainer is deaf to the first."""
    lab.plan(step_seconds=0.05, deaf=True, ignore_term=True)
    one = lab.session(steps=200, guard=fast(stop=600))
    keeper = one.start()
    record = one.await_step(12)
    pids = (keeper.pid, record.ranks[0].pid)
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    one.await_status("stopping")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    keeper.wait(10)
    until(lambda: all_gone(record))
    seen = overview.look(lab.home, "one")
    assert (seen.state, seen.record.status) == ("lost", "stopping")
    assert seen.reason.startswith("keeper died at step ")
    lab.plan()
    record = one.run()
    assert (record.status, record.attempt) == ("completed", 2)
    assert record.resumed_from


@pytest.mark.root
def test_19_a_process_that_got_a_recycled_pid_is_never_signalled(lab: Lab):
    """The keeper's and the trainer's pids are given to strangers by setting the kernel's counter."""
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=60)
    keeper = one.start()
    record = one.await_step(12)
    keeper.process.kill()
    keeper.wait()
    until(lambda: not os.path.exists(f"/proc/{record.ranks[0].pid}"))
    strangers = []
    for wanted in (record.ranks[0].pid, record.keeper.pid):
        for _ in range(200):
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(wanted - 1))
            started = subprocess.Popen(["/bin/sleep", "60"])
            if started.pid == wanted:
                strangers.append(started)
                break
            started.kill()
            started.wait()
    assert [one.pid for one in strangers] == [record.ranks[0].pid, record.keeper.pid]  # the fault happened
    assert not process.is_alive(record.keeper)
    assert not process.send(record.ranks[0], signal.SIGKILL)
    assert overview.look(lab.home, "one").state == "lost"  # and not running
    with pytest.raises(RefusedError, match="Nothing of one runs: it is lost"):
        control.kill(lab.home, "one")
    assert all(stranger.poll() is None for stranger in strangers)
    lab.plan()
    assert one.run().status == "completed"
    assert all(stranger.poll() is None for stranger in strangers)
    for stranger in strangers:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("jump", ["+1d", "-1d"])
def test_20_a_clock_that_jumps_a_day_fires_nothing_and_durations_stay_right(lab: Lab, tmp_path: Path, jump):
    if LIBFAKETIME is None:
        why = "libfaketime is not installed; make test FAULTS=root installs it"
        pytest.fail(why) if os.environ.get("FLUXTUI_FAULTS") == "root" else pytest.skip(why)
    clock = tmp_path / "clock"
    clock.write_text("+0")
    lab.plan({"at": 20, "do": "hang", "seconds": 1}, step_seconds=0.05)
    one = lab.session(steps=60)
    began = time.monotonic()
    keeper = one.start(
        LD_PRELOAD=str(LIBFAKETIME), FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1", FAKETIME_DONT_FAKE_MONOTONIC="1"
    )
    before = one.await_step(10).beat_at
    states: set[str] = set()  # what a front shows that looks all the time, and whose clock is a day off against the keeper's

    def looked() -> bool:
        states.add(overview.look(lab.home, "one").state)
        return keeper.process.poll() is not None

    looked()
    clock.write_text(jump)
    until(lambda: looked() or abs(one.record().beat_at - before) > timedelta(hours=23))  # the fault happened
    until(looked, 40)
    took = time.monotonic() - began
    one.check()
    record = one.record()
    assert (record.status, record.attempt) == ("completed", 1)
    assert "STUCK" not in one.log()
    assert states <= {"running", "stalled", "completed"}, "a keeper at work was called silent, or dead"
    assert timedelta(seconds=3) <= record.finished_at - record.started_at < timedelta(seconds=took + 1)


def test_39_a_session_folder_that_is_removed_ends_its_trainer_at_once_and_its_name_is_free(lab: Lab):
    lab.plan({"at": 5, "do": "hang"}, ignore_term=True)
    one = lab.session()
    keeper = one.start()
    record = one.await_step(5)
    shutil.rmtree(one.folder.path)
    again = lab.session("one")  # the name is used again before the old keeper has looked
    until(lambda: all_gone(record), 3.0)
    keeper.wait(5)
    assert again.attempts == []  # nothing of the old one was written into the new folder
    assert os.listdir(again.folder.control) == []
    lab.plan()
    assert again.run().status == "completed"


def test_39_a_folder_removed_while_it_waits_ends_the_keeper(lab: Lab):
    lab.plan(step_seconds=0.05)
    first, second = lab.session("first", steps=1000), lab.session("second")
    keeper = first.start()
    first.await_step(1)
    waiting = second.start()
    shutil.rmtree(second.folder.path)
    waiting.wait(5)
    assert not second.folder.path.exists()
    first.request("kill")
    keeper.wait()
