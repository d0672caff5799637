"""What somebody put in the place of a file or folder of ours: FIFOs, links, stray files. No keeper hangs, none deletes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from keeper_lab import SLOW, Lab, until

from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import temporary_name


def put(path: Path, what: str) -> None:
    if what == "a FIFO":
        os.mkfifo(path)
    elif what == "a file":
        path.write_bytes(b"stray")
    else:
        path.symlink_to("nowhere")


def test_a_fifo_in_the_place_of_the_reserve_holds_up_no_start(lab: Lab):
    one = lab.session()
    put(one.folder.reserve_file, "a FIFO")
    assert one.run().status == "completed"
    assert "nothing is held in reserve" in one.log()


@pytest.mark.parametrize("what", ["a FIFO", "a link"])
def test_a_log_that_is_no_file_is_refused_in_a_sentence(lab: Lab, what: str):
    one = lab.session()
    put(one.folder.log_file, what)
    began = time.monotonic()
    refused = one.start(may_fail=True)
    assert refused.wait() == 1
    assert time.monotonic() - began < 10 * SLOW
    assert "training.log is not a regular file; move it away" in refused.answer["error"]
    assert one.attempts == []


def test_29_what_is_named_like_a_checkpoint_and_is_none_is_set_aside_and_the_one_before_used(lab: Lab):
    lab.plan({"at": 12, "do": "exit", "code": 76})
    one = lab.session(every=5)
    assert one.run().status == "failed"
    lab.plan()
    names = {"step-000000097": "a file", "step-000000098": "a FIFO", "step-000000099": "a link"}
    for name, what in names.items():
        put(one.folder.checkpoints / name, what)
    put(one.folder.checkpoints / "step-000000010" / "more", "a link")  # in a sound one, to nowhere
    record = one.run()
    assert (record.status, record.resumed_from) == ("completed", "step-000000005")
    for name in (*names, "step-000000010"):
        assert os.path.lexists(one.folder.checkpoints / f".corrupt-{name}-1")


def test_a_control_folder_that_becomes_a_link_costs_a_stranger_nothing(lab: Lab, tmp_path: Path):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=1000, every=0)
    keeper = one.start()
    one.await_step(2)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "thesis.toml").write_text("years of work")
    one.folder.control.rmdir()
    one.folder.control.symlink_to(stranger)
    one.await_step(one.record().step + 30)  # the keeper looks twice a second
    assert (stranger / "thesis.toml").read_text() == "years of work"
    os.kill(keeper.pid, signal.SIGTERM)
    keeper.wait()
    assert one.record().status == "stopped"
    refused = one.start(may_fail=True)
    assert refused.wait() == 1
    assert "control is a link" in refused.answer["error"]
    assert os.listdir(stranger) == ["thesis.toml"]


def test_what_the_killed_left_half_written_is_gone_at_the_next_start(lab: Lab):
    one = lab.session()
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    of_dead, of_living = temporary_name().replace(f"-{os.getpid()}-", f"-{dead.pid}-"), temporary_name()
    folders = [one.folder.path, one.folder.attempts, one.folder.samples, one.folder.control]
    for folder in folders:
        (folder / of_dead).write_bytes(b"half")
        (folder / of_living).write_bytes(b"half")
    assert one.run().status == "completed"
    assert [(folder / of_dead).exists() for folder in folders] == [False, False, False, True]
    assert all((folder / of_living).exists() for folder in folders)
    os.utime(one.folder.control / of_dead, (0, 0))  # a front in another container may have written it just now; not this one
    one.folder.product.unlink()
    one.run()
    assert not (one.folder.control / of_dead).exists()


def test_what_another_machine_is_writing_is_left_alone(lab: Lab):
    """Its locks may not be seen here, nor its processes: a pid of its own is a dead one's here."""
    one = lab.session()
    one.run()
    there = msgspec.structs.replace(one.record(), status="running", host="there", boot_id="b", beat_at=datetime.now(UTC))
    toml.write(one.folder.attempt_file(1), there)
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    written = one.folder.path / temporary_name().replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    written.write_bytes(b"half")
    refused = one.start(may_fail=True)
    assert (refused.wait(), "running on there" in refused.answer["error"]) == (4, True)
    assert written.exists()


def test_with_the_last_number_taken_the_next_attempt_is_refused_and_no_record_lost(lab: Lab):
    one = lab.session()
    for name in ("999999999.toml", "0.toml"):  # no attempts of ours
        (one.folder.attempts / name).write_text("")
    assert one.run().attempt == 1
    (one.folder.attempts / "999999.toml").write_text("")
    one.folder.product.unlink()
    refused = one.start(may_fail=True)
    assert refused.wait() == 1
    assert "no attempt can follow" in refused.answer["error"]
    lying_there = ["0.toml", "0001.toml", "999999.toml", "999999999.toml", "session.toml.copy"]
    assert sorted(os.listdir(one.folder.attempts)) == lying_there
    until(lambda: not one.is_kept())
