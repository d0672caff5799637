"""The settings of a session are not lost with its session.toml: its keeper has a copy, and one resume takes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from keeper_lab import Lab, Session

from fluxtui import control
from fluxtui.persist.errors import DamagedError
from fluxtui.persist.sessions import overview


def lose(path: Path, how: str) -> None:
    """What befalls a file: removed, emptied by a power cut, something else in its place."""
    size = path.stat().st_size
    path.unlink()
    if how == "a FIFO":
        os.mkfifo(path)
    elif how == "zeros":
        path.write_bytes(bytes(size))
    elif how == "empty":
        path.write_bytes(b"")


@pytest.fixture
def failed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session that failed after its first checkpoint; what follows it does not fail."""
    lab.plan({"at": 15, "do": "exit", "code": 76})
    one = lab.session()
    one.run()
    lab.plan()
    for key, value in lab.environment({}).items():
        monkeypatch.setenv(key, value)
    return one


@pytest.mark.parametrize("how", ["gone", "empty", "zeros", "a FIFO"])
def test_a_session_whose_spec_is_lost_goes_on_with_the_copy_that_its_keeper_kept(failed: Session, how: str):
    one, path = failed, failed.folder.spec_file
    whole = path.read_bytes()
    lose(path, how)
    seen = overview.look(one.lab.home, "one")
    assert (seen.state, seen.remedy, seen.is_resumable) == ("unreadable", "fluxtui resume one", True)
    assert "a copy of the settings, which a resume takes" in seen.reason
    assert control.start(one.lab.home, "one", resume="auto") == 2
    assert control.wait(one.lab.home, "one", timeout=60).state == "completed"
    one.check()
    assert one.record().resumed_from == "step-000000010"
    assert path.read_bytes() == whole
    aside = one.folder.path / ".corrupt-session.toml-1"
    assert os.path.lexists(aside) == (how != "gone")
    assert "session.toml was lost, and is made again from the copy" in one.log()


def test_a_spec_in_which_a_line_was_mistyped_is_the_users_and_not_written_over(failed: Session):
    one, path = failed, failed.folder.spec_file
    path.write_text(text := path.read_text().replace("[train]", "[train"))
    with pytest.raises(DamagedError, match="not valid TOML"):
        control.start(one.lab.home, "one", resume="auto")
    assert path.read_text() == text
    assert one.attempts == [1]


def test_the_copy_follows_what_was_accepted_and_a_session_without_one_says_so(failed: Session):
    one, path = failed, failed.folder.spec_file
    path.write_text(changed := path.read_text().replace("learning_rate = 0.0001", "learning_rate = 0.0002"))
    one.start("--accept-changes").wait()
    assert one.folder.kept_spec_file.read_text() == changed
    one.folder.kept_spec_file.unlink()
    path.unlink()
    seen = overview.look(one.lab.home, "one")
    assert (seen.state, seen.is_resumable) == ("unreadable", False)
    assert seen.remedy.startswith("fix session.toml")


def test_what_stands_in_the_copys_way_stops_no_start(lab: Lab):
    one = lab.session()
    one.folder.complete()
    one.folder.kept_spec_file.mkdir()
    assert one.run().status == "completed"
    assert "no copy of the settings is kept" in one.log()
