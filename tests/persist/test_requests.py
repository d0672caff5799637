"""Control files: each request consumed once; garbage rejected in a sentence, bounded, never blocking."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxtui.persist.errors import StorageError, UsageError
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.requests import LIMIT, VERBS, drop_request, take_requests

GOOD = b'id = "abc"\nverb = "stop"\nattempt = 1\nat = 2026-01-01T00:00:00Z\n'


@pytest.fixture
def session(tmp_path: Path) -> SessionFolder:
    folder = SessionFolder(tmp_path / "s")
    folder.create()
    return folder


def test_requests_arrive_once_in_order_with_their_ids(session: SessionFolder) -> None:
    ids = [drop_request(session, verb, 3, value=5 if verb == "priority" else None) for verb in VERBS]
    taken, rejected = take_requests(session)
    assert [request.id for request in taken] == ids
    assert [request.verb for request in taken] == list(VERBS)
    assert {request.attempt for request in taken} == {3}
    assert taken[-1].value == 5
    assert rejected == []
    assert take_requests(session) == ([], [])
    assert os.listdir(session.control) == []


def test_an_unknown_verb_is_refused_at_the_door(session: SessionFolder) -> None:
    with pytest.raises(UsageError, match="the requests are stop"):
        drop_request(session, "explode", 1)
    assert os.listdir(session.control) == []


def test_a_half_written_request_is_not_seen(session: SessionFolder) -> None:
    (session.control / ".tmp-1-0000000000000000").write_bytes(GOOD[:20])
    assert take_requests(session) == ([], [])
    assert len(os.listdir(session.control)) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"", b"\0" * 100, b"\xff\xfe", GOOD[:30], GOOD + GOOD,
        GOOD.replace(b"stop", b"explode"), GOOD.replace(b"= 1", b'= "1"'),
        GOOD.replace(b"abc", b""), GOOD.replace(b"abc", b"a/../b"), GOOD.replace(b"abc", b"a" * 65),
        GOOD.replace(b"abc", b"\\u001b]52;"),
        b"a" * (LIMIT + 1), GOOD + b"#" * LIMIT, b"a = " + b"[" * 4000, b"a" + b".a" * 2000 + b" = 1",
    ],
)  # fmt: skip
def test_garbage_is_rejected_in_one_printable_sentence_and_gone(session: SessionFolder, garbage: bytes) -> None:
    (session.control / "0-x.toml").write_bytes(garbage)
    drop_request(session, "stop", 1)
    taken, rejected = take_requests(session)
    assert [request.verb for request in taken] == ["stop"], "one bad file hid the good one"
    assert len(rejected) == 1
    assert rejected[0].isascii()
    assert rejected[0].isprintable()
    assert len(rejected[0]) < 400
    assert os.listdir(session.control) == []


def test_what_is_no_file_is_rejected_without_blocking_and_only_once(session: SessionFolder) -> None:
    os.mkfifo(session.control / "1-fifo.toml")
    (session.control / "2-folder.toml").mkdir()
    (session.control / "2-folder.toml" / "x").touch()
    (session.control / "3-link.toml").symlink_to("/etc/passwd")
    (session.control / "4-\x1b]0;owned\x07.toml").write_bytes(b"x")
    taken, rejected = take_requests(session)
    assert taken == []
    assert len(rejected) == 4
    assert all(sentence.isascii() and sentence.isprintable() for sentence in rejected)
    assert take_requests(session) == ([], [])
    assert Path("/etc/passwd").exists()


def test_a_flood_is_read_in_portions(session: SessionFolder) -> None:
    for number in range(1000):
        (session.control / f"{number:04d}.toml").write_bytes(b"x" * 100)
    start = time.monotonic()
    taken, rejected = take_requests(session)
    assert len(rejected) == 256
    assert time.monotonic() - start < 2.0
    for _ in range(3):
        rejected += take_requests(session)[1]
    assert len(rejected) == 1000
    assert taken == []


def test_a_missing_folder_is_no_request_an_unreadable_one_a_sentence(
    session: SessionFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert take_requests(SessionFolder(session.path / "missing")) == ([], [])

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "scandir", fails)
    taken, rejected = take_requests(session)
    assert taken == []
    assert "the disk failed" in rejected[0]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_keeper_out_of_descriptors_loses_no_request(session: SessionFolder, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    wanted = drop_request(session, "stop", 1)

    def fails(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fails)
        assert take_requests(session) == ([], [])
    assert [request.id for request in take_requests(session)[0]] == [wanted]


def test_on_a_read_only_disk_a_request_is_still_heard(session: SessionFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = drop_request(session, "kill", 1)

    def refuses(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "unlink", refuses)
    monkeypatch.setattr(os, "rename", refuses)
    assert [request.id for request in take_requests(session)[0]] == [wanted]


def test_where_the_folder_became_a_link_no_file_of_a_stranger_is_read_or_deleted(session: SessionFolder, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    for name in ("thesis.txt", "0-x.toml"):
        (stranger / name).write_bytes(GOOD)
    session.control.rmdir()
    session.control.symlink_to(stranger)
    assert take_requests(session) == ([], [])
    with pytest.raises(StorageError, match="control is a link"):
        drop_request(session, "stop", 1)
    assert sorted(os.listdir(stranger)) == ["0-x.toml", "thesis.txt"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")
def test_a_folder_of_another_user_is_not_obeyed(session: SessionFolder) -> None:
    drop_request(session, "kill", 1)
    os.chown(session.control, 12345, 12345)
    assert take_requests(session) == ([], [])
    with pytest.raises(StorageError, match="belongs to user 12345"):
        drop_request(session, "stop", 1)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=400)
    | st.text(max_size=200).map(str.encode)
    | st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=8)).map(lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] :])
)
def test_whatever_bytes_lie_there_the_keeper_goes_on(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = SessionFolder(tmp_path_factory.getbasetemp() / "fuzzed")
    folder.control.mkdir(parents=True, exist_ok=True)
    (folder.control / "x.toml").write_bytes(data)
    taken, rejected = take_requests(folder)
    assert len(taken) + len(rejected) == 1
    assert os.listdir(folder.control) == []
    assert all(request.verb in VERBS for request in taken)


def test_the_dearest_toml_that_fits_costs_the_keeper_little(session: SessionFolder) -> None:
    for number in range(10):
        (session.control / f"{number}.toml").write_bytes(b"a" + b".a" * (LIMIT // 2 - 4) + b" = 1")
    start = time.process_time()
    assert len(take_requests(session)[1]) == 10
    assert time.process_time() - start < 3.0
