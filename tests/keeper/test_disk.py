"""The truth can be told on a full disk (fault 4), and a start is refused where there is no room (fault 6)."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
from keeper_lab import Lab, fast, until

from fluxtui.control import room
from fluxtui.engine.keeper import startup
from fluxtui.engine.keeper.clock import Watch
from fluxtui.engine.keeper.journal import Journal, SessionGoneError
from fluxtui.engine.keeper.session_log import Log
from fluxtui.engine.keeper.startup import read_history
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import StorageError
from fluxtui.persist.files import durable, toml
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home
from fluxtui.persist.models.folder import recognise
from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.record import Record
from fluxtui.persist.settings.spec import DatasetSpec, ModelSpec, Spec
from tests.faults import mounts


@pytest.fixture
def small(tmp_path: Path):
    """A lab on a file system of 14 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", mount], check=True)
    lab = Lab(mount, Home.open(mount / "home"))
    yield lab
    lab.close()
    until(lambda: subprocess.run(["umount", mount], check=False, capture_output=True).returncode == 0, 10)


@pytest.mark.root
def test_4_a_full_disk_is_said_in_the_record_and_a_resume_after_room_is_made_is_exact(small: Lab):
    lab, filler = small, small.path / "filler"
    lab.plan({"attempt": 1, "at": 15, "do": "fill_disk", "path": str(filler)})
    one = lab.session(guard=fast(max_auto_resumes=1))
    keeper = one.start()
    keeper.wait()
    space = os.statvfs(lab.path)
    assert space.f_bavail * space.f_frsize <= 64 * 1024  # the fault happened: only what the reserve gave up is free
    record = one.record()
    assert (record.status, record.exit_code, len(one.attempts)) == ("failed", 80, 1)
    assert "No space left" in record.reason
    assert record.checkpoint == "step-000000010"
    assert not one.folder.reserve_file.exists()
    refused = one.start(may_fail=True)
    assert refused.wait() == 1
    assert not refused.answer["ok"]
    filler.unlink()
    lab.plan()
    assert one.run().status == "completed"


@pytest.fixture
def journal(lab: Lab):
    one = lab.session()
    lock = Lock.take(one.folder.lock_file)
    made = Journal(one.folder, lock, Log(one.folder.log_file), Watch())
    now = made.today()
    made.begin(Record(session_id="s", attempt=1, nonce="n", status="queued", queued_at=now, host="h", boot_id="b", run_id="r"))
    yield one, made
    lock.release()


def test_a_transition_that_the_disk_refuses_gives_up_the_reserve_and_is_owed_until_it_is_written(journal, monkeypatch):
    one, made = journal
    real, tries = toml.write, []

    def full(path, value):
        tries.append(one.folder.reserve_file.exists())
        raise StorageError("the disk is full", errno.ENOSPC)

    monkeypatch.setattr(toml, "write", full)
    made.transition("failed", reason="why it failed")
    assert tries == [True, False]
    assert made.is_owed
    assert toml.read(one.folder.attempt_file(1), Record).status == "queued"
    monkeypatch.setattr(toml, "write", real)
    until(lambda: made.tick() or not made.is_owed, 3)
    assert toml.read(one.folder.attempt_file(1), Record).reason == "why it failed"


def test_an_attempt_whose_record_the_disk_does_not_keep_was_never_begun(journal, monkeypatch):
    """The sync of the folder fails, after the record got its name."""
    one, made = journal
    real = durable.fsync_folder

    def fails(folder):
        if folder == one.folder.attempts:
            raise StorageError("the disk failed", errno.EIO)
        real(folder)

    monkeypatch.setattr(durable, "fsync_folder", fails)
    with pytest.raises(StorageError):
        made.begin(msgspec.structs.replace(made.record, attempt=2))
    assert one.attempts == [1]
    assert made.record.attempt == 1


def test_a_disk_that_is_slow_to_sync_is_given_fewer_beats_but_every_answer_at_once(journal, monkeypatch):
    one, made = journal
    real, written = toml.write_beat, []

    def slow(path, value):
        time.sleep(0.4)
        real(path, value)
        written.append(value.step)

    monkeypatch.setattr(toml, "write_beat", slow)
    until(lambda: made.update(step=len(written) + 1) or made.tick() or len(written) == 1, 5)
    began = time.monotonic()
    made.update(step=2)
    while time.monotonic() - began < 2:
        made.tick()
        time.sleep(0.05)
    assert written == [1], "a tenth of the keeper's time at most"
    made.acknowledge("id", "stop", "accepted")
    made.tick()
    assert written == [1, 2]
    assert toml.read(one.folder.attempt_file(1), Record).acks[0].id == "id"


def test_only_transitions_of_the_design_are_made(journal):
    _, made = journal
    with pytest.raises(AssertionError):
        made.transition("completed")
    with pytest.raises(AssertionError):
        made.transition("running")
    made.transition("starting")
    made.transition("running")
    made.transition("failed")
    with pytest.raises(AssertionError):
        made.transition("running")


def test_nothing_is_written_once_the_lock_is_another_file(journal):
    one, made = journal
    one.folder.lock_file.unlink()
    one.folder.lock_file.touch()
    before = one.folder.attempt_file(1).read_bytes()
    with pytest.raises(SessionGoneError):
        made.transition("starting")
    assert one.folder.attempt_file(1).read_bytes() == before


@pytest.mark.parametrize("is_transition", [True, False])
def test_a_folder_of_records_that_was_taken_away_is_made_again(journal, is_transition):
    one, made = journal
    shutil.rmtree(one.folder.attempts)
    if is_transition:
        made.transition("starting")
    else:
        made.acknowledge("id", "stop", "accepted")  # a beat that is due at once
        made.tick()
    assert not made.is_owed
    assert toml.read(one.folder.attempt_file(1), Record) == made.record


@pytest.mark.parametrize("is_transition", [True, False])
def test_no_record_is_written_where_a_link_in_its_folders_place_leads(journal, tmp_path: Path, is_transition):
    one, made = journal
    os.rename(one.folder.attempts, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "0001.toml").write_bytes(b"a stranger's")
    one.folder.attempts.symlink_to(tmp_path / "elsewhere")
    if is_transition:
        made.transition("failed", reason="why it failed")
        assert made.is_owed
        assert "is a link, and a session never leads out of its folder" in one.log()
    else:
        made.acknowledge("id", "stop", "accepted")  # a beat that is due at once
        made.tick()
        with pytest.raises(StorageError):
            made.begin(msgspec.structs.replace(made.record))
    assert (tmp_path / "elsewhere" / "0001.toml").read_bytes() == b"a stranger's"
    one.folder.attempts.unlink()
    until(lambda: made.acknowledge("id", "stop", "") or made.tick() or not made.is_owed, 3)
    assert toml.read(one.folder.attempt_file(1), Record) == made.record


def test_a_disk_that_does_not_say_whether_the_folder_is_there_ends_nothing(journal, monkeypatch):
    one, made = journal
    real = os.lstat

    def broken(path, **more):
        if path == one.folder.lock_file:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, **more)

    monkeypatch.setattr(os, "lstat", broken)
    for _ in range(3):
        made.check_lock()
    assert one.log().count("cannot be seen, and is asked again") == 1
    monkeypatch.setattr(os, "lstat", real)
    made.check_lock()
    one.folder.lock_file.unlink()
    with pytest.raises(SessionGoneError):
        made.check_lock()


def test_a_lock_of_yesterday_on_a_disk_that_turned_read_only_is_still_held(journal, monkeypatch):
    one, made = journal
    os.utime(one.folder.lock_file, (0, 0))

    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", read_only)
    made.check_lock()


def test_28_a_record_that_cannot_be_read_is_kept_and_the_next_attempt_goes_on(lab: Lab):
    """Every kind at once: torn, empty, of other types, of duplicate keys, no text, and a gigabyte."""
    lab.plan({"at": 15, "do": "exit", "code": 76})
    one = lab.session()
    one.run()
    whole = one.folder.attempt_file(1).read_text()
    broken = {
        1: whole[:100].encode(),
        2: b"",
        3: whole.replace("step = 15", 'step = "fifteen"').encode(),
        4: b'status = "failed"\nstatus = "running"\n',
        5: b"\xff\xfe\x00",
    }
    assert broken[3] != whole.encode()
    for number, data in broken.items():
        one.folder.attempt_file(number).write_bytes(data)
    with one.folder.attempt_file(6).open("wb") as file:
        file.truncate(2**30)
    assert read_history(one.folder, one.spec.id) == []
    seen = overview.look(lab.home, "one")
    assert (seen.state, seen.remedy) == ("unreadable", "fluxtui resume one")
    lab.plan()
    one.start().wait()
    record = one.record()
    assert (record.status, record.attempt, record.resumed_from) == ("completed", 7, "step-000000010")
    assert {number: one.folder.attempt_file(number).read_bytes() for number in broken} == broken
    assert one.folder.attempt_file(6).stat().st_size == 2**30


def test_41_a_recipe_changed_since_the_last_attempt_is_refused_unless_accepted(lab: Lab):
    lab.plan({"at": 15, "do": "exit", "code": 76})
    one = lab.session()
    one.run()
    text = one.folder.spec_file.read_text()
    assert "learning_rate = 0.0001" in text
    one.folder.spec_file.write_text(text.replace("learning_rate = 0.0001", "learning_rate = 0.0002"))
    lab.plan()
    refused = one.start(may_fail=True)
    assert (refused.wait(), refused.answer["code"]) == (4, 4)
    assert "--accept-changes" in refused.answer["error"]
    assert one.attempts == [1]
    one.start("--accept-changes").wait()
    assert one.record().accept_changes


@pytest.mark.root
@pytest.mark.parametrize(("home_mib", "checkpoints_mib"), [(12, 64), (64, 1)])
def test_checkpoints_on_a_disk_of_their_own_have_its_room_and_not_the_homes(
    tmp_path: Path, home_mib: int, checkpoints_mib: int
):
    """docs/recovery.md says to mount the larger disk there."""
    spec = Spec(name="one", id="i", model=ModelSpec(source="pico"), dataset=DatasetSpec(path="demo"))
    source = recognise("pico", Home.open(tmp_path / "elsewhere"))
    need = room.estimate(spec, source)
    assert 12 << 20 < need.total < 64 << 20
    assert need.checkpoints > 1 << 20
    with mounts.tmpfs(tmp_path / "home", f"{home_mib}m"):
        folder = Home.open(tmp_path / "home").session("one")
        folder.create()
        with mounts.tmpfs(folder.checkpoints, f"{checkpoints_mib}m"):
            if checkpoints_mib > home_mib:
                room.check(Home.open(tmp_path / "home"), spec, source)
                startup.must_have_room(folder)
                said = pytest.raises(StorageError, match=r"checkpoints/.*the disk is read-only")
                with mounts.read_only(folder.checkpoints), said:
                    startup.must_have_room(folder)
                return
            with pytest.raises(StorageError, match=r"are free at .*/one/checkpoints, and one needs .* checkpoints"):
                room.check(Home.open(tmp_path / "home"), spec, source)
            commit.commit_checkpoint(folder.checkpoints, commit.step_name(1), {"x": bytes(700_000)}, {"step": 1})
            with pytest.raises(StorageError, match=r"where .*/one/checkpoints lies"):
                startup.must_have_room(folder)
