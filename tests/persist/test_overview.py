"""Sessions as fronts show them: real homes, real locks and processes, and folders in which anything may lie."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fluxtui.persist import process
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import NotFoundError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions import facts as session_facts
from fluxtui.persist.sessions import overview, overview_json, record_cache
from fluxtui.persist.sessions.record import Phase, Proof, Record
from fluxtui.persist.settings import defaults, recipe
from tests.persist.inert import is_inert
from tests.ui.fabricate import make_record, make_session

FIELDS = (
    "name title id status state reason phase attempt step steps epoch epochs loss step_seconds eta_seconds started_at "
    "finished_at exit_code signal gpus checkpoint output tensors_sha256 resumable"
)


@pytest.fixture
def home(home_path: Path) -> Home:
    record_cache._seen.clear()
    return Home.open(home_path)


def make(home: Home, name: str, **changes: Any) -> SessionFolder:
    """A session with one record; without changes, one that runs on this machine."""
    folder = home.session(name)
    folder.create()
    spec = defaults.new_spec(name, "pico", "demo", "pico", 12, "", {"title": f"title of {name}"})
    recipe.save_spec(folder.spec_file, spec)
    now = datetime.now(UTC)
    record = Record(
        session_id=spec.id, attempt=1, nonce="n", status="running", phase=Phase.TRAIN, step=10, steps=40, step_seconds=0.5,
        loss=0.25, queued_at=now, started_at=now, beat_at=now, host=socket.gethostname(), boot_id=process.boot_id(), run_id="r",
    )  # fmt: skip
    toml.write(folder.attempt_file(1), msgspec.structs.replace(record, **changes))
    return folder


def test_the_json_has_every_documented_field_and_is_json(home: Home) -> None:
    folder = make(home, "a", loss=float("nan"))
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    shown = overview_json.to_json(overview.look(home, "a"))
    assert set(FIELDS.split()) <= set(shown)
    json.dumps(shown, allow_nan=False)
    assert (shown["state"], shown["title"], shown["eta_seconds"], shown["loss"], shown["resumable"]) == (
        "running",
        "title of a",
        15.0,
        None,
        False,
    )
    lock.release()
    assert overview.look(home, "a").state == "lost"
    assert overview.look(home, "a").is_resumable


def test_what_is_left_takes_in_the_samples_to_come(home: Home) -> None:
    lock = Lock.take(make(home, "a", interlude_seconds=100.0).lock_file)
    assert lock is not None
    assert overview.look(home, "a").eta_seconds == 30 * 0.5 + 100.0


@pytest.mark.parametrize("changes", [{"step_seconds": float("inf")}, {"interlude_seconds": float("nan")}])
def test_a_record_that_says_no_number_of_seconds_is_shown_without_a_time_left(home: Home, changes: dict[str, float]) -> None:
    lock = Lock.take(make(home, "a", **changes).lock_file)
    assert lock is not None
    seen = overview.look(home, "a")
    assert (seen.state, seen.eta_seconds) == ("running", None)


def test_a_stop_after_the_epoch_is_shown_with_the_time_to_its_end(home: Home) -> None:
    folder = make(home, "a", epoch=2, epochs=4, epoch_end=20, stops_after_epoch=True)
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    seen = overview.look(home, "a")
    assert (seen.stop_words, seen.eta_seconds) == ("stops after epoch 2, in about 5 s", 5.0)
    assert overview_json.to_json(seen)["stops_after_epoch"] == 2
    make_over(folder, phase=Phase.PROVE)
    assert overview.look(home, "a").stop_words == ""
    make_over(folder, status="stopping")
    assert overview.look(home, "a").stop_words == ""
    make_over(folder)
    lock.release()
    assert (overview.look(home, "a").state, overview.look(home, "a").stop_words) == ("lost", "")
    assert [overview.roughly(seconds) for seconds in (0.2, 89, 90, 3600, 86400)] == ["1 s", "89 s", "2 min", "60 min", "24 h"]


def make_over(folder: SessionFolder, **changes: Any) -> None:
    """Another record of the same attempt, with a stop after the epoch asked."""
    before = toml.read(folder.attempt_file(1), Record)
    plain = {"status": "running", "phase": Phase.TRAIN, **changes}
    toml.write(folder.attempt_file(1), msgspec.structs.replace(before, **plain))


def test_no_such_session_and_no_such_name(home: Home) -> None:
    with pytest.raises(NotFoundError):
        overview.look(home, "nothing")
    with pytest.raises(UsageError):
        overview.look(home, "../etc")


def _remake(path: Path, how: str) -> None:
    if how == "gone":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "torn":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "random":
        path.write_bytes(random.Random(1).randbytes(4000))
    elif how == "1 GB":
        os.truncate(path, 2**30)
    elif how == "wrong types":
        path.write_text("status = 3\nattempt = 'x'\nname = []\nid = 1\ntitle = 2\n")
    elif how == "duplicate keys":
        path.write_text(path.read_text() + "\nstatus = 'completed'\nid = 'x'\n[model]\n[model]\n")
    elif how == "a FIFO":
        path.unlink()
        os.mkfifo(path)
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "a dead link":
        path.unlink()
        path.symlink_to("nowhere")


BROKEN = ["gone", "empty", "torn", "random", "1 GB", "wrong types", "duplicate keys", "a FIFO", "a folder", "a dead link"]


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("which", ["session.toml", "attempts/0001.toml"])
def test_a_broken_session_is_listed_kept_and_spoils_no_other(home: Home, which: str, how: str) -> None:
    make(home, "good", status="stopped")
    folder = make(home, "bad", status="stopped")
    _remake(folder.path / which, how)
    listed = sorted(entry.name for entry in folder.path.rglob("*"))
    start = time.monotonic()
    bad, good = overview.look_all(home)
    assert time.monotonic() - start < 2
    assert good.state == "stopped"
    if (which, how) == ("attempts/0001.toml", "gone"):
        assert bad.state == "new"
    elif which == "attempts/0001.toml" or how in {"gone", "random", "1 GB", "a FIFO", "a folder", "a dead link", "wrong types"}:
        assert bad.state == "unreadable"
        assert which.rpartition("/")[2] in bad.reason
        assert is_inert(bad.reason)
    assert bad.is_resumable == (bad.state == "stopped" or (bad.state == "unreadable" and which != "session.toml"))
    assert sorted(entry.name for entry in folder.path.rglob("*")) == listed


def test_a_record_of_a_newer_version_is_shown(home: Home) -> None:
    folder = make(home, "a", status="stopped")
    path = folder.attempt_file(1)
    path.write_text("future = 1\n" + path.read_text() + "\n[more]\nx = 1\n")
    assert overview.look(home, "a").state == "stopped"


def test_escapes_in_a_record_and_a_title_are_shown_inert(home: Home) -> None:
    evil = "\x1b]52;c;aGk=\x07\x9b31m\u202eevil"
    folder = make(home, "a", status="failed", reason=evil, remedy=evil, gpus=[evil], signal=evil, inner=evil)
    own = recipe.load_spec(folder.spec_file).id
    folder.spec_file.write_text(f'title = "\\u001b[31m{evil[3:]}"\nid = "{own}"\n'.replace("\x07", "").replace("\x9b", "\\u009b"))
    seen = overview.look(home, "a")
    for text in (seen.title, seen.reason, seen.remedy, seen.gpus[0], seen.signal, seen.inner):
        assert is_inert(text), text
        assert text


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield started
    started.kill()
    started.wait()


def test_a_stopped_keeper_is_suspended_and_a_recycled_pid_is_nobody(home: Home, sleeper: subprocess.Popen[bytes]) -> None:
    identity = process.identify(sleeper.pid)
    assert identity is not None
    folder = make(home, "a", keeper=identity)
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    assert overview.look(home, "a").state == "running"
    os.kill(sleeper.pid, signal.SIGSTOP)
    end = time.monotonic() + 5
    while overview.look(home, "a").state != "suspended":
        assert time.monotonic() < end
    stranger = msgspec.structs.replace(identity, start_ticks=identity.start_ticks - 1)
    record = toml.read(folder.attempt_file(1), Record)
    toml.write(folder.attempt_file(1), msgspec.structs.replace(record, keeper=stranger))
    assert overview.look(home, "a").state == "running", "whoever has the pid now says nothing about the keeper"
    lock.release()


def test_a_long_lived_front_sees_every_new_record_and_reads_none_twice(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(home, "a", status="queued")
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    reads = 0
    real = toml.read_bytes

    def counted(*words: Any, **more: Any) -> bytes:
        nonlocal reads
        reads += 1
        return real(*words, **more)

    monkeypatch.setattr(toml, "read_bytes", counted)
    record = toml.read(folder.attempt_file(1), Record)
    for step in range(1, 30):
        toml.write_beat(folder.attempt_file(1), msgspec.structs.replace(record, status="running", step=step))
        reads = 0
        assert [overview.look(home, "a").step for _ in range(3)] == [step] * 3
        assert reads <= 2
    lock.release()


def test_a_folder_that_is_removed_while_it_is_read_is_no_error(home: Home) -> None:
    import shutil
    import threading

    for number in range(60):
        make(home, f"s{number}")
    stop = threading.Event()
    problems: list[Exception] = []

    def look() -> None:
        while not stop.is_set():
            try:
                overview.look_all(home)
            except Exception as error:  # noqa: BLE001  (whatever it is, it is the finding)
                problems.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(60):
        shutil.rmtree(home.sessions / f"s{number}")
    stop.set()
    reader.join()
    assert not problems
    assert overview.look_all(home) == []


def test_a_thousand_sessions_some_broken_are_looked_at_in_a_blink(home: Home) -> None:
    template = make(home, "template", status="stopped", finished_at=datetime.now(UTC) - timedelta(hours=1))
    spec, record = template.spec_file.read_bytes(), template.attempt_file(1).read_bytes()
    for number in range(999):
        folder = home.sessions / f"s{number:04d}"
        (folder / "attempts").mkdir(parents=True)
        (folder / "session.toml").write_bytes(spec)
        (folder / "attempts" / "0001.toml").write_bytes(record if number % 10 else record[:-40])
    spent = []
    for _ in range(5):
        record_cache._seen.clear()
        start = time.process_time()
        found = overview.look_all(home)
        spent.append(time.process_time() - start)
    assert len(found) == 1000
    assert sum(seen.state == "unreadable" for seen in found) == 100
    assert min(spent) < 0.3, "CPU seconds; the wall clock of a shared machine says nothing"


def test_where_the_lock_cannot_be_looked_at_a_living_keeper_is_believed_and_no_other_is_called_dead(home: Home) -> None:
    me = process.identify(os.getpid())
    assert me is not None
    me = msgspec.structs.replace(me, run_id=process.run_id_of(os.getpid()) or "")
    living = make(home, "living", keeper=me)
    gone = make(home, "gone", keeper=msgspec.structs.replace(me, start_ticks=me.start_ticks + 1))
    for folder in (living, gone):
        os.mkfifo(folder.lock_file)  # as root no permission stands in the way
    seen = overview.look(home, "living")
    assert (seen.state, seen.is_active) == ("running", True)
    seen = overview.look(home, "gone")
    assert (seen.state, seen.is_active) == ("unreadable", False)
    assert "cannot be seen" in seen.reason
    assert "not a regular file" in seen.reason


def test_a_new_keeper_is_not_shown_with_the_record_of_the_dead_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = process.identify(os.getpid())
    assert keeper is not None
    folder = make(home, "a", keeper=msgspec.structs.replace(keeper, run_id="dead"))
    assert overview.look(home, "a").state == "lost"
    for holder, state in (("", "running"), ("dead", "running"), ("next", "starting")):
        found = Lock.take(folder.lock_file, holder)  # one that says nothing of itself may be the one of the record
        assert found is not None
        assert overview.look(home, "a").state == state
        found.release()
        assert overview.look(home, "a").state == "lost"
    assert Lock.holder(folder.lock_file) == "next"

    seen, pwrite = [], os.pwrite

    def look_before_the_name_is_written(descriptor: int, data: bytes, offset: int) -> int:
        seen.append((overview.look(home, "a").state, Lock.take(folder.lock_file)))
        return pwrite(descriptor, data, offset)

    Lock.take(folder.lock_file, "dead").release()  # type: ignore[union-attr]
    monkeypatch.setattr(os, "pwrite", look_before_the_name_is_written)
    found = Lock.take(folder.lock_file, "next")
    assert found is not None
    assert seen == [("lost", None)], "the dead one's name still stood there, and the lock was taken already"
    found.release()


def test_what_another_sessions_record_says_is_not_said_of_this_one(home: Home) -> None:
    make(home, "other", status="completed", proof=Proof(ok=True, size=3))
    folder = make(home, "a")
    shutil.copy(home.session("other").attempt_file(1), folder.attempt_file(1))
    folder.product.write_bytes(b"abc")  # and its product too
    seen = overview.look(home, "a")
    assert (seen.state, seen.status, seen.attempt) == ("unreadable", "", 1)
    assert "another session" in seen.reason
    assert seen.is_resumable
    assert [record for _, record, _ in overview.records(home, "a")] == [None]


def test_a_spec_without_an_id_is_unreadable_and_no_new_session(home: Home) -> None:
    folder = make(home, "a")
    folder.attempt_file(1).unlink()
    assert overview.look(home, "a").state == "new"
    folder.spec_file.write_bytes(b"")
    seen = overview.look(home, "a")
    assert (seen.state, seen.is_resumable) == ("unreadable", False)


@pytest.mark.parametrize("what", ["a file", "a FIFO", "a link", "a folder of another"])
def test_what_lies_in_the_place_of_the_attempts_is_named_and_no_resume_that_it_would_stop(home: Home, what: str) -> None:
    folder = make(home, "a")
    commit.commit_checkpoint(folder.checkpoints, commit.step_name(3), {"state": b"x"}, {"step": 3})
    shutil.rmtree(folder.attempts)
    if what == "a file":
        folder.attempts.write_bytes(b"x")
    elif what == "a FIFO":
        os.mkfifo(folder.attempts)
    elif what == "a link":
        folder.attempts.symlink_to("nowhere")
    elif os.geteuid() == 0:
        folder.attempts.mkdir()
        os.chown(folder.attempts, 65534, 65534)
    else:
        pytest.skip("only root can give a folder away")
    seen = overview.look(home, "a")
    assert (seen.state, seen.is_resumable) == ("unreadable", False)
    assert str(folder.attempts) in seen.reason
    assert seen.remedy == "fix that; then fluxtui show a"
    os.rename(folder.attempts, folder.path / "away")
    assert overview.look(home, "a").remedy == "fluxtui resume a"


def test_a_session_that_was_renamed_or_copied_names_itself_in_what_follows(home: Home) -> None:
    """The other one may be there as well, and be another session by now."""
    left = "fluxtui new one-2 --from one --set train.learning_rate=5e-5; or fluxtui resume one goes on, one by one"
    folder = make(home, "one", status="failed", reason="why", remedy=left)
    shutil.copytree(folder.path, folder.path.with_name("two"))
    assert overview.look(home, "one").remedy == left
    renamed = "fluxtui new two-2 --from two --set train.learning_rate=5e-5; or fluxtui resume two goes on, one by one"
    assert overview.look(home, "two").remedy == renamed


def test_a_clock_that_was_set_makes_no_disk_hang_for_who_has_seen_the_beat_change(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = process.identify(os.getpid())
    assert keeper is not None
    keeper = msgspec.structs.replace(keeper, run_id=process.run_id_of(os.getpid()) or "")
    beat = datetime.now(UTC) - timedelta(days=1)
    folder = make(home, "a", keeper=keeper, beat_at=beat)
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    monkeypatch.setattr(session_facts, "_state_of", lambda _: "D")  # waits for its disk at this moment, as anybody does
    assert overview.look(home, "a").state == "storage"  # by one look a late beat is all that is known
    record = toml.read(folder.attempt_file(1), Record)
    toml.write(folder.attempt_file(1), msgspec.structs.replace(record, beat_at=beat + timedelta(seconds=5)))
    assert overview.look(home, "a").state == "running"
    lock.release()


@pytest.mark.parametrize("checkpoint", ["", "../../x", "step-1", "step-000000400"])
def test_whatever_a_record_calls_its_checkpoint_a_session_is_listed_where_it_stands(tmp_path: Path, checkpoint: str) -> None:
    home = Home.open(tmp_path)
    make_record(make_session(home, "a"), status="failed", step=500, checkpoint=checkpoint)
    (seen,) = overview.look_all(home)
    assert seen.standing == (400 if checkpoint == "step-000000400" else 0)
