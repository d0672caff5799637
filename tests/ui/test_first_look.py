"""The first look at all sessions, made in a child process beside the imports, and what it remembers for the next one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fluxtui.persist.home import Home
from fluxtui.screens.watching.sessions_watch import FirstLook, SessionsWatch, _index_file
from tests.ui.fabricate import make_record, make_session
from tests.ui.glass import ROOT

IN_A_CHILD = """
import sys
from pathlib import Path
from fluxtui.persist.home import Home
from fluxtui.screens.watching import sessions_watch
home = Home.open(Path(sys.argv[1]))
if sys.argv[2] == "read":
    look_in = sessions_watch.look_in
    def loud(folder, here):
        print("read", folder.name, flush=True)
        return look_in(folder, here)
    sessions_watch.look_in = loud
if sys.argv[2] == "die":
    sessions_watch._look_and_tell = lambda home, writing: sys.exit(3)
first = sessions_watch.FirstLook.begin(home)
seen = first.take()
first.forget()
print("nothing" if seen is None else " ".join(one.name + "=" + one.shown.state for one in seen.sessions))
"""


def _look(home: Home, what: str = "") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD, str(home.root), what],
        capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert not done.stderr
    return done.stdout.splitlines()


def _three(root: Path) -> Home:
    home = Home.open(root)
    for name in ("one", "two", "three"):
        make_record(make_session(home, name), status="stopped", step=10, reason="stopped by the user")
    return home


def test_a_session_that_the_disk_cannot_look_at_is_shown_and_hides_no_other(
    home_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = _three(home_path)

    def failing(real: Any) -> Any:
        def fails(path: Any, *more: Any, **named: Any) -> Any:
            if str(path).startswith(str(home.sessions / "two")):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(path, *more, **named)

        return fails

    for name in ("stat", "lstat", "open", "listdir"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    sessions, _, trouble = SessionsWatch(home).look()
    assert ([session.name for session in sessions], trouble) == (["one", "three", "two"], "")
    assert [session.state for session in sessions] == ["stopped", "stopped", "unreadable"]


def test_a_child_sees_what_one_sees_oneself_and_all_of_it_arrives(home_path: Path) -> None:
    home = _three(home_path)
    assert _look(home) == ["one=stopped three=stopped two=stopped"]
    own, _, _ = SessionsWatch(home).look()
    told = msgspec.msgpack.decode(_index_file(home).read_bytes(), type=type(SessionsWatch(home).seen()))
    sessions, changed, trouble = SessionsWatch(home).adopt(told)
    assert (sessions, trouble) == (own, "")
    assert changed == {"one", "two", "three"}


def test_what_has_not_changed_since_is_not_read_again_and_what_has_is(home_path: Path) -> None:
    home = _three(home_path)
    assert len([line for line in _look(home, "read") if line.startswith("read")]) == 3
    make_record(home.session("two"), status="failed", step=11, reason="no more room")
    *read, seen = _look(home, "read")
    assert read == ["read two"]
    assert seen == "one=stopped three=stopped two=failed"


def test_a_remembered_look_that_is_garbage_is_as_none(home_path: Path) -> None:
    home = _three(home_path)
    _look(home)
    _index_file(home).write_bytes(b"\xff" * 1000)
    assert _look(home) == ["one=stopped three=stopped two=stopped"]


def test_a_child_that_dies_leaves_the_look_to_its_parent(home_path: Path) -> None:
    assert _look(_three(home_path), "die") == ["nothing"]


def test_beside_other_threads_no_process_is_forked(home_path: Path) -> None:
    import threading

    home, is_over = _three(home_path), threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    try:
        assert FirstLook.begin(home) is None
    finally:
        is_over.set()
        thread.join()
